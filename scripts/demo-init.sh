#!/bin/sh
# /init of the demo guest (busybox). udhcpc and acpid run the same file under other names for their events.
export PATH=/bin HOME=/root TERM=dumb PS1='demo# '

say() {
    echo "demo: $*"
}

mount_filesystems() {
    mount -t proc proc /proc
    mount -t sysfs sysfs /sys
    mount -t devtmpfs devtmpfs /dev
    mkdir -p /dev/pts
    mount -t devpts devpts /dev/pts
}

load_modules() {
    while read -r module; do
        insmod "/lib/modules/$module.ko"
    done < /lib/modules/order
}

watch_power_button() {
    acpid -f -l /dev/null -p /run/acpid.pid &
}

start_network() {
    ip link set lo up
    dhcp_pid=
    [ -e /sys/class/net/eth0 ] || return 0
    ip link set eth0 up
    udhcpc -i eth0 -s /etc/udhcpc.script -f -q -n -t 5 -T 1 > /dev/null 2>&1 &
    dhcp_pid=$!
}

# udhcpc hands the lease over in the environment.
# shellcheck disable=SC2154
dhcp_event() {
    [ "$1" = bound ] || return 0
    ip addr add "$ip/${mask:-24}" dev "$interface"
    [ -z "${router:-}" ] || ip route add default via "${router%% *}" dev "$interface"
    for server in ${dns:-}; do
        echo "nameserver $server"
    done > /etc/resolv.conf
}

# Kernel messages would land in the middle of lines that programs read; dmesg still has them.
hold_kernel_messages() {
    read -r console_loglevel _ < /proc/sys/kernel/printk
    echo 1 > /proc/sys/kernel/printk
}

release_kernel_messages() {
    echo "$console_loglevel" > /proc/sys/kernel/printk
}

printable() {
    tr -dc ' -~'
}

report_machine() {
    # The firmware leaves its escape sequences on an unfinished line.
    echo
    read -r release < /proc/sys/kernel/osrelease
    say "kernel $release"
    say "cpus $(grep -c '^processor' /proc/cpuinfo)"
    read -r _ total _ < /proc/meminfo
    say "memory $total"
    say "cmdline $cmdline"
    encryption=$(dmesg | sed -n 's/.*Memory Encryption Features active: *//p')
    say "memory-encryption ${encryption:-none}"
}

report_virtio() {
    for device in /sys/bus/virtio/devices/*; do
        [ -e "$device/features" ] || continue
        path=$(readlink -f "$device")
        path=${path%/*}
        driver=$(readlink "$device/driver") || driver=none
        bits=$(cut -c 33-34 "$device/features")
        say "virtio ${path##*/} ${driver##*/} version1=${bits%?} access_platform=${bits#?}"
    done
}

disk_serial() {
    if [ -s "$1/serial" ]; then
        printable < "$1/serial"
    elif [ -e "$1/device/vpd_pg80" ]; then
        tail -c +5 "$1/device/vpd_pg80" | printable
    fi
}

report_disks() {
    for disk in /sys/block/*; do
        name=${disk##*/}
        case $name in loop* | ram* | zram* | '*') continue ;; esac
        read -r sectors < "$disk/size"
        read -r readonly < "$disk/ro"
        [ "$readonly" = 1 ] && mode=ro || mode=rw
        serial=$(disk_serial "$disk" 2> /dev/null | tr -d ' ')
        start=$(head -c 32 "/dev/$name" 2> /dev/null | printable)
        say "disk $name $((sectors * 512)) ${serial:--} $mode $start"
    done
}

# What systemd would take: the launcher puts them behind this initrd.
report_credentials() {
    for credential in /.extra/system_credentials/*.cred; do
        [ -r "$credential" ] || continue
        name=${credential##*/}
        say "credential ${name%.cred} $(stat -c '%a %u:%g %Y' "$credential") $(printable < "$credential")"
    done
}

# What follows WORD= on the kernel's command line.
word() {
    for one in $cmdline; do
        case $one in "$1="*) echo "${one#*=}" ;; esac
    done
}

# The disk that udev would call /dev/disk/by-id/virtio-SERIAL.
named_disk() {
    for disk in /sys/block/*; do
        [ "$(cat "$disk/serial" 2> /dev/null)" != "${1##*/virtio-}" ] || echo "/dev/${disk##*/}"
    done
}

# As much of systemd's generator as a root under dm-verity takes, where a veritysetup is behind this initrd.
open_root() {
    root_hash=$(word roothash)
    [ -n "$root_hash" ] && [ -x /bin/veritysetup ] || return
    data=$(named_disk "$(word systemd.verity_root_data)")
    hashes=$(named_disk "$(word systemd.verity_root_hash)")
    options=$(word systemd.verity_root_options)
    if ! DM_DISABLE_UDEV=1 veritysetup open "$data" root "$hashes" "$root_hash" ${options:+"--$options"} 2> /tmp/verity; then
        say "root refused $(tail -n 1 /tmp/verity | printable)"
        return
    fi
    say "root $(head -c 32 /dev/mapper/root 2> /dev/null | printable)"
    if cat /dev/mapper/root > /dev/null 2>&1; then say "root read"; else say "root unreadable"; fi
    say "root $(veritysetup status root | sed -n 's/^ *status: */status /p')"
}

report_network() {
    [ -z "$dhcp_pid" ] || wait "$dhcp_pid"
    addresses=$(ip -o -4 addr show | awk '$2 != "lo" { sub("/.*", "", $4); print "demo: net", $2, $4 }')
    echo "${addresses:-demo: net none}"
}

report_rng() {
    source=none
    [ ! -e /sys/class/misc/hw_random/rng_current ] || read -r source < /sys/class/misc/hw_random/rng_current
    if [ "$source" = none ]; then
        say "rng none"
        return
    fi
    bytes=$(timeout 5 head -c 16 /dev/hwrng 2> /dev/null | wc -c)
    [ "$bytes" = 16 ] && state=ok || state=failed
    say "rng $source $state"
}

power_off() {
    say off
    # The UART may still hold lines; setting the terminal waits until they are out.
    stty -F /dev/console sane
    poweroff -f
}

# acpid's children write to its log; the empty line ends the one with the shell's prompt.
power_button() {
    exec > /dev/console 2>&1
    echo
    say "power button"
    power_off
}

agent_port() {
    for port in /sys/class/virtio-ports/vport*; do
        [ -r "$port/name" ] && read -r name < "$port/name" || continue
        [ "$name" != org.qemu.guest_agent.0 ] || { echo "/dev/${port##*/}" && return; }
    done
    return 1
}

# As much of a guest agent as guest-ping takes.
answer_agent() {
    set -- /sys/bus/virtio/drivers/virtio_console/virtio*
    [ -e "$1" ] || return
    # QEMU tells the kernel of its ports after the device is there.
    tries=100
    until device=$(agent_port); do
        [ $((tries -= 1)) -gt 0 ] || return
        sleep 0.1
    done
    # The port can be opened once only, is at its end while nobody listens, and loses what it holds when it is closed.
    while :; do
        if read -r _; then echo '{"return": {}}'; else sleep 0.1; fi
    done <> "$device" >&0
}

# The disk with the label cidata: ECMA-119, 8.4.7, the volume identifier of the first volume descriptor.
seed_device() {
    for disk in /sys/block/*; do
        device=/dev/${disk##*/}
        [ "$(dd "if=$device" bs=1 skip=32808 count=6 2> /dev/null)" != cidata ] || { echo "$device" && return; }
    done
    return 1
}

# As much of cloud-init as logging in takes: a user with the rights of root, and the keys that let it in.
first_boot() {
    echo 'root:x:0:0:root:/root:/bin/sh' > /etc/passwd
    device=$(seed_device) && mount -t iso9660 -o ro "$device" /seed 2> /dev/null || return
    user=$(sed -n 's/^- name: //p' /seed/user-data)
    [ -z "$user" ] || echo "$user:x:0:0:$user:/root:/bin/sh" >> /etc/passwd
    mkdir -m 700 /root/.ssh
    # YAML folds long lines.
    tr -s ' \n' ' ' < /seed/user-data | grep -oE '(ssh|ecdsa|sk)-[a-z0-9@.-]+ AAAA[A-Za-z0-9+/=]+' > /root/.ssh/authorized_keys
    hostname "$(sed -n 's/^local-hostname: //p' /seed/meta-data)"
}

# It makes a host key at the first connection. Nobody gets in by a password.
start_ssh() {
    [ ! -s /root/.ssh/authorized_keys ] || [ ! -x /bin/dropbear ] || dropbear -R -s
}

run_shells() {
    while :; do
        setsid cttyhack sh
        # Without a working console the shell ends at once.
        sleep 1
    done
}

boot() {
    mount_filesystems
    load_modules
    watch_power_button
    start_network
    read -r cmdline < /proc/cmdline
    hold_kernel_messages
    report_machine
    report_virtio
    report_disks
    report_credentials
    open_root
    report_network
    first_boot
    start_ssh
    report_rng
    answer_agent &
    say ready
    release_kernel_messages
    case " $cmdline " in *" demo.exit=poweroff "*) power_off ;; esac
    run_shells
}

case $0 in
    /etc/udhcpc.script) dhcp_event "$@" ;;
    */PWRF/*) power_button ;;
    *) boot ;;
esac
