# What the scripts share. To be sourced.

# help_if_asked ARGUMENT...: --help as the first argument prints the comment at the head of the script, and ends it.
help_if_asked() {
    case "${1:-}" in -h | --help) ;; *) return 0 ;; esac
    sed -n '2,/^[^#]/s/^#\( \|$\)//p' "$0"
    exit 0
}

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

die() {
    say "$*"
    exit 1
}

# The packages of each system: QEMU, UEFI firmware, Python with virtual environments. One line a system.
packages_for() {
    case "$1" in
        debian | ubuntu) echo "qemu-system-x86 ovmf python3 python3-venv" ;;
        fedora | rhel | centos) echo "qemu-system-x86-core edk2-ovmf python3" ;;
        opensuse* | sles | suse) echo "qemu-x86 qemu-ovmf-x86_64 python311" ;;
        *) return 1 ;;
    esac
}

# The command that installs packages there without asking.
installer_for() {
    case "$1" in
        debian | ubuntu) echo "env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends" ;;
        fedora | rhel | centos) echo "dnf install -y" ;;
        opensuse* | sles | suse) echo "zypper --non-interactive install --no-recommends" ;;
    esac
}

is_installed() {
    case "$1" in
        debian | ubuntu) [ "$(dpkg-query -W -f '${db:Status-Status}' "$2" 2> /dev/null)" = installed ] ;;
        *) rpm -q --quiet "$2" ;;
    esac
}

system_id() {
    # shellcheck disable=SC1091 # a file of the system
    (. /etc/os-release && echo "${ID:-unknown}")
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo > /dev/null; then
        sudo "$@"
    else
        die "this needs root to run: $*"
    fi
}

# install_missing [PACKAGE...]: QEMU, firmware and Python, and further packages, unless they are there.
install_missing() {
    local id packages missing="" package
    id=$(system_id)
    if ! packages=$(packages_for "$id"); then
        lacks=""
        command -v qemu-system-x86_64 > /dev/null || lacks="$lacks qemu-system-x86_64"
        [ -n "$(ls /usr/share/qemu/firmware 2> /dev/null)" ] || lacks="$lacks OVMF-with-firmware-descriptors"
        find_python > /dev/null || lacks="$lacks python-3.11"
        [ -z "$lacks" ] || die "I don't know how $id installs packages; please install:$lacks"
        return 0
    fi
    for package in $packages "$@"; do
        is_installed "$id" "$package" || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    say "installing$missing"
    # Lists of packages are no configuration, and a fresh machine has none.
    case "$id" in debian | ubuntu) as_root apt-get update -qq ;; esac
    # shellcheck disable=SC2046,SC2086 # lists of words
    as_root $(installer_for "$id") $missing > /dev/null
}

find_python() {
    local candidate
    for candidate in python3 /usr/bin/python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

# prepare_venv PROJECT EXTRAS: the project's virtual environment, with the package in it.
prepare_venv() {
    local project=$1 extras=$2 python stamp wanted
    stamp="$project/.venv/.installed$extras"
    wanted=$(cksum "$project/pyproject.toml")
    if [ ! -x "$project/.venv/bin/sevlaunch" ] || [ "$(cat "$stamp" 2> /dev/null)" != "$wanted" ]; then
        python=$(find_python) || die "wanted Python 3.11 or newer with venv, found none"
        say "preparing .venv with $("$python" --version)"
        [ -x "$project/.venv/bin/python" ] || "$python" -m venv "$project/.venv"
        # A plain path in place of an import hook: Python itself then starts twice as fast.
        "$project/.venv/bin/python" -m pip install --quiet --disable-pip-version-check \
            --config-settings editable_mode=compat --editable "$project$extras"
        echo "$wanted" > "$stamp"
    fi
    # As pip does for a package that it copies. With PYTHONDONTWRITEBYTECODE every start would else compile it anew.
    "$project/.venv/bin/python" -m compileall -q "$project/sevlaunch"
}
