# shellcheck shell=bash
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
        debian | ubuntu) echo "apt-get install -y --no-install-recommends" ;;
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
    # shellcheck disable=SC2086 # lists of words
    if [ "$(id -u)" = 0 ]; then
        install_packages "$id" "" $missing
    elif ! command -v sudo > /dev/null || ! install_packages "$id" sudo $missing; then
        die "these packages are missing, and only an administrator can install them:$missing
As root, run:
    $(installing_command "$id")$missing"
    fi
}

# install_packages SYSTEM SUDO PACKAGE...
install_packages() {
    local id=$1 sudo=$2
    shift 2
    # Lists of packages are no configuration, and a fresh machine has none.
    # shellcheck disable=SC2046,SC2086 # lists of words, SUDO may be none
    case "$id" in
        debian | ubuntu)
            $sudo apt-get update -qq && $sudo env DEBIAN_FRONTEND=noninteractive $(installer_for "$id") "$@" > /dev/null
            ;;
        *) $sudo $(installer_for "$id") "$@" > /dev/null ;;
    esac
}

# The whole of what an administrator types before the names of packages.
installing_command() {
    case "$1" in debian | ubuntu) printf 'apt-get update && ' ;; esac
    installer_for "$1"
}

# The Pythons that the lock in requirements/ is made for.
find_python() {
    local candidate
    for candidate in python3 /usr/bin/python3 python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2> /dev/null; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

# prepare_venv PROJECT EXTRAS: the project's virtual environment, with the package and what the lock has for it in it:
# what sevlaunch needs to run (EXTRAS is empty) or what its tests need, too ([test]). Nothing else is downloaded.
prepare_venv() {
    local project=$1 extras=$2 venv="$1/.venv" part=run wanted
    wanted=$(cat "$project"/pyproject.toml "$project"/requirements/*.txt | cksum)
    if [ "$(cat "$venv/.installed$extras" 2> /dev/null)" != "$wanted" ] || ! is_usable_venv "$venv"; then
        if [ ! -w "$project" ] || { [ -e "$venv" ] && [ ! -w "$venv" ]; }; then
            die "$venv has to be made or renewed, and this user may not write there: work in a clone of your own"
        fi
        is_usable_venv "$venv" || make_venv "$venv"
        [ -z "$extras" ] || part="test"
        # What is built on this machine would be built with packages that nobody pinned.
        venv_pip "$venv" install --require-hashes --only-binary :all: --requirement "$project/requirements/$part.txt"
        # A plain path in place of an import hook: Python itself then starts twice as fast.
        venv_pip "$venv" install --no-deps --no-build-isolation --config-settings editable_mode=compat \
            --editable "$project"
        remove_unlocked "$project" "$venv"
        # With the tests' part there is all that the other part has.
        echo "$wanted" | tee "$venv/.installed" > "$venv/.installed$extras"
    fi
    # As pip does for a package that it copies. With PYTHONDONTWRITEBYTECODE every start would else compile it anew.
    [ ! -w "$project/sevlaunch" ] || "$venv/bin/python" -m compileall -q "$project/sevlaunch"
}

# The Python that it was made with may be gone, or the project have moved: a virtual environment's scripts hold its path.
is_usable_venv() {
    grep -qF " $1" "$1/pyvenv.cfg" 2> /dev/null && "$1/bin/python" -c 'import pip' 2> /dev/null
}

make_venv() {
    local python
    python=$(find_python) || die "wanted Python 3.11 to 3.14 with venv, found none"
    say "preparing .venv with $("$python" --version)"
    rm -rf "$1"
    "$python" -m venv "$1"
}

venv_pip() {
    local venv=$1
    shift
    "$venv/bin/python" -m pip --disable-pip-version-check --quiet "$@"
}

# What earlier locks had, and pip leaves behind, would hide that it is missing.
remove_unlocked() {
    local project=$1 venv=$2 installed unlocked
    installed=$("$venv/bin/python" -m pip freeze --all --exclude-editable) || return
    unlocked=$(sed 's/[= @].*//; s/[-_.]\+/-/g; s/.*/\L&/' <<< "$installed" |
        grep -vxF -e pip -f <(sed -n 's/^\([a-z0-9-]*\)==.*/\1/p' "$project"/requirements/*.txt)) || return 0
    # shellcheck disable=SC2086 # a list of packages
    venv_pip "$venv" uninstall --yes $unlocked
}
