# Sourced by the scripts here. `prepare_environment FOLDER` makes a virtual environment in this checkout, once: .venv has what
# a node needs, .venv-test what the tests need as well. Both have the project itself, editable, so that FOLDER/bin/cacheflow
# runs what stands here. Sets $root, the checkout, and $python, the environment's. Needs nothing but bash and Python.
# `prepare_browser` installs what the tests of the page need beside it, where that can be done.

root=$(cd "${BASH_SOURCE[0]%/*}/.." && pwd -P)

fail() {
    echo "${0##*/}: $*" >&2
    exit 2
}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    local candidate
    for candidate in "${PYTHON:-python3}" python3 python3.14 python3.13 python3.12 python3.11 python; do
        if is_new_enough "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

# Two scripts that start at once must not install into one folder. The lock belongs to the open descriptor 9, which the
# little Python program shares with this shell: it is gone with the script that holds it, however that ends.
lock() {
    exec 9<"$root/scripts/environment.sh"
    "$1" - <<'END'
import fcntl, sys
try:
    fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("Another script is installing; waiting for it ...", file=sys.stderr)
    fcntl.flock(9, fcntl.LOCK_EX)
except OSError:
    pass  # a file system without locks
END
}

unlock() {
    exec 9<&-
}

prepare_environment() {
    local folder=$root/$1 base requirements made_from stamp
    python=$folder/bin/python
    requirements=$(<"$root/requirements.txt")
    # A node needs what stands above the line that begins with "# Tests".
    [ "$1" = .venv-test ] || requirements=${requirements%%$'\n'# Tests*}
    # setup.cfg and pyproject.toml say which commands there are. The path, in front, is in many files of an environment: one
    # that came here with a copied or moved checkout would go on using the old place.
    made_from=$folder$'\n'$requirements$'\n'$(<"$root/setup.cfg")$'\n'$(<"$root/pyproject.toml")
    stamp=$(cat "$folder/stamp" 2>/dev/null) || true
    if [ "$stamp" = "$made_from" ] && is_new_enough "$python"; then
        return
    fi

    # An environment from a Python that is not on the PATH serves for the lock, too.
    base=$(find_python) || base=$python
    is_new_enough "$base" || fail "needs Python 3.11 or later; none was found on the PATH (PYTHON=... names one)"
    lock "$base"
    stamp=$(cat "$folder/stamp" 2>/dev/null) || true
    if [ "$stamp" = "$made_from" ] && is_new_enough "$python"; then
        unlock
        return
    fi
    # Written last: an interrupted installation has no stamp and is done again.
    rm -f "$folder/stamp"
    if [ "${stamp%%$'\n'*}" != "$folder" ] || ! is_new_enough "$python" || ! "$python" -m pip --version >/dev/null 2>&1; then
        [ "$base" != "$python" ] || fail "needs Python 3.11 or later on the PATH to make $folder anew (PYTHON=... names one)"
        "$base" -c 'import ensurepip, venv' 2>/dev/null ||
            fail "this Python cannot make virtual environments; install python3-venv (Debian, Ubuntu: apt install python3-venv)"
        rm -rf "$folder"
        "$base" -m venv "$folder" || fail "cannot make a virtual environment in $folder"
    fi
    echo "Installing what is needed into $folder ..." >&2
    printf '%s\n' "$requirements" | "$python" -m pip install --quiet --disable-pip-version-check -r /dev/stdin ||
        fail "cannot install the requirements"
    # The requirements above are the exact versions of what the project needs.
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps --editable "$root" ||
        fail "cannot install the project"
    printf '%s\n' "$made_from" >"$folder/stamp"
    unlock
}

# Debian's Chromium, which tests/browser use. Where it is missing and cannot be installed they are skipped, and say so.
prepare_browser() {
    if command -v chromium >/dev/null; then
        return
    fi
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "No Chromium, and it cannot be installed here: the tests of the page are skipped." >&2
        return
    fi
    echo "Installing Chromium ..." >&2
    apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium >/dev/null ||
        echo "Chromium could not be installed: the tests of the page are skipped." >&2
}
