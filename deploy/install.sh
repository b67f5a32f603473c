#!/bin/sh
# Install discod on this host from this checkout, bring it up to date, or remove it. Needs root.
# A second run with the same sources and the same Python changes nothing.
set -eu

usage() {
    cat <<'END'
usage: deploy/install.sh [--no-start] [--prefix DIR] [--root DIR]
       deploy/install.sh --uninstall [--purge] [--prefix DIR] [--root DIR]

  --no-start    install and enable, but neither start nor restart the service
  --uninstall   stop and remove; configuration, state and user stay
  --purge       with --uninstall: remove these too
  --prefix DIR  where the program goes (default /opt/discod)
  --root DIR    trial: put everything below DIR, and touch no user, group or running service
END
}

action=install start=yes purge=no prefix=/opt/discod root=
while [ $# -gt 0 ]; do
    case $1 in
        --no-start) start=no ;;
        --uninstall) action=uninstall ;;
        --purge) purge=yes ;;
        --prefix | --root)
            case ${2:-} in
                /*) ;;
                *) echo "$1 needs an absolute path" >&2; exit 2 ;;
            esac
            if [ "$1" = --prefix ]; then prefix=${2%/}; else root=${2%/}; fi
            shift ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
    shift
done
case $prefix in
    "" | *[!A-Za-z0-9_./-]* | *..*) echo "--prefix: $prefix is no place for it" >&2; exit 2 ;;
esac

checkout=$(cd "$(dirname "$0")/.." && pwd)
home=$root$prefix
unit=$root/etc/systemd/system/discod.service
sockets=$root/etc/systemd/system/discod-dns.socket
buffers=$root/etc/sysctl.d/10-discod.conf
link=$root/usr/local/bin/discod
config=$root/etc/discod/discod.toml

if [ -z "$root" ] && [ "$(id -u)" != 0 ]; then
    echo "this changes the system: run it as root, or try it with --root DIR" >&2
    exit 1
fi
# Whether there is a service manager to talk to.
managed() { [ -z "$root" ] && [ -d /run/systemd/system ]; }

uninstall() {
    if managed; then
        # The sockets first: a question to them would start the service again.
        for name in discod-dns.socket discod.service; do
            systemctl disable --now "$name" 2>/dev/null || true
        done
    fi
    rm -f "$unit" "$sockets" "$buffers"
    if [ "$(readlink "$link" 2>/dev/null)" = "$prefix/current/bin/discod" ]; then rm -f "$link"; fi
    if [ -d "$home/releases" ]; then rm -rf "$home/releases" "$home/current"; fi
    rmdir "$home" 2>/dev/null || true
    if managed; then systemctl daemon-reload; fi
    if [ "$purge" = yes ]; then
        rm -rf "$root/etc/discod" "$root/var/lib/discod" "$root/run/discod"
        if [ -z "$root" ] && getent passwd discod >/dev/null; then userdel discod; fi
        echo "discod is removed"
    else
        echo "discod is removed; left in place: /etc/discod, /var/lib/discod, the user discod"
    fi
}

accounts() {
    [ -z "$root" ] || return 0
    # The unit names this group, and Docker takes it as it is when it comes later.
    getent group docker >/dev/null || groupadd --system docker
    getent passwd discod >/dev/null || useradd --system --user-group --no-create-home \
        --home-dir /var/lib/discod --shell /usr/sbin/nologin discod
}

# Make the release of these sources, unless it is there.
release() {
    # The system's own first: one in a home directory is out of the service's reach.
    python=$(PYTHON=${PYTHON:-/usr/bin/python3 /usr/local/bin/python3 python3} \
        "$checkout/scripts/find-python")
    case $root$(readlink -f "$python") in
        /home/* | /root/* | /run/user/*)
            echo "$python lies in a home directory, which the service cannot see" >&2
            echo "name another one: PYTHON=/usr/bin/python3 deploy/install.sh" >&2
            exit 1 ;;
    esac
    if ! "$python" -c "import ensurepip, venv" 2>/dev/null; then
        echo "$python lacks its venv module; on Debian: apt-get install python3-venv" >&2
        exit 1
    fi
    id=$(cd "$checkout" && {
        "$python" -VV
        cat requirements-build.lock requirements.lock pyproject.toml
        find discod announcer resolver calico_bgp -name '*.py' -o -name '*.toml' | LC_ALL=C sort |
            while read -r file; do echo "$file"; cat "$file"; done
    } | sha256sum | cut -c1-16)
    made=$home/releases/$id
    if [ -e "$made/.complete" ]; then
        echo "release $id is there already"
        return 0
    fi
    echo "making release $id with $("$python" --version)"
    rm -rf "$made"
    mkdir -p "$home/releases"
    "$python" -m venv "$made"
    # The sources are built in a copy, so that nothing is left in the checkout.
    copy=$(mktemp -d)
    trap 'rm -rf "$copy"' EXIT
    (cd "$checkout" && find pyproject.toml LICENSE README.md discod announcer resolver calico_bgp \
        -name __pycache__ -prune -o -type f -print | tar -cf - -T -) | tar -xf - -C "$copy"
    pip() {
        "$made/bin/python" -m pip --quiet --disable-pip-version-check install \
            --no-build-isolation "$@"
    }
    pip --require-hashes -r "$checkout/requirements-build.lock"
    pip --require-hashes --use-pep517 -r "$checkout/requirements.lock"
    pip --no-deps --no-index "$copy"
    # The service may not write here: without this each start would compile everything again.
    "$made/bin/python" -m compileall -q "$made/lib" || true
    mkdir -p "$made/share/discod"
    cp "$checkout/docs/config.md" "$made/share/discod/"
    chmod -R go+rX "$made"
    : >"$made/.complete"
}

# Now, and at each boot; a limit that is higher already stays. Where the kernel forbids it (in a
# container, say), discod gets smaller buffers and works.
larger_buffers() {
    cp "$checkout/deploy/sysctl-discod.conf" "$buffers"
    [ -z "$root" ] || return 0
    sed -n 's/^net\.core\.\([a-z_]*\) *= *\([0-9]*\)$/\1 \2/p' "$buffers" |
        while read -r name wanted; do
            present=$(cat "/proc/sys/net/core/$name" 2>/dev/null || echo "$wanted")
            if [ "$present" -lt "$wanted" ]; then
                sysctl --quiet "net.core.$name=$wanted" ||
                    echo "net.core.$name cannot be raised here" >&2
            fi
        done
}

install_all() {
    umask 022
    accounts
    release
    ln -s "releases/$id" "$home/.current.$$"
    mv -T "$home/.current.$$" "$home/current"

    mkdir -p "$(dirname "$unit")" "$(dirname "$link")" "$(dirname "$config")" \
        "$(dirname "$buffers")"
    for file in "$unit" "$sockets"; do
        sed "s#/opt/discod#$prefix#g" "$checkout/deploy/$(basename "$file")" >"$file.new"
        mv "$file.new" "$file"
    done
    larger_buffers
    if [ -L "$link" ] || [ ! -e "$link" ]; then
        ln -sfn "$prefix/current/bin/discod" "$link"
    else
        echo "left alone, for it is no link of ours: $link" >&2
    fi
    if [ ! -e "$config" ]; then
        cp "$checkout/deploy/discod.toml" "$config"
    fi
    if ! "$home/current/bin/discod" check-config "$config"; then
        echo "the configuration has faults: mend it, then run this again" >&2
        exit 1
    fi
    if managed; then
        systemctl daemon-reload
        systemctl enable --quiet discod.service
        # Restarting within the lease causes no gap: the new daemon takes the records over.
        if [ "$start" = yes ]; then systemctl restart discod.service; fi
    fi
    # What no longer runs.
    if [ "$start" = yes ]; then
        for old in "$home"/releases/*; do
            [ "$old" = "$made" ] || rm -rf "$old"
        done
    fi
    echo "installed: $link; configuration: $config"
}

case $action in
    install) install_all ;;
    uninstall) uninstall ;;
esac
