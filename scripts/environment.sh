# Sourced by the scripts here. `prepare_environment DIR REQUIREMENTS` makes a virtual environment in DIR with the
# pinned REQUIREMENTS (text), once; a stamp with their hash makes the next start quick. Sets $python.

fail() {
    echo "$(basename "$0"): $*" >&2
    exit 2
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

prepare_environment() {
    local folder=$1 requirements=$2 base stamp
    python=$folder/bin/python
    # Once an environment exists it says itself which Python it has.
    if [ -x "$python" ] && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        base=$python
    else
        base=$(find_python) || fail "needs Python 3.11 or later; none was found on the PATH (PYTHON=... names one)"
    fi
    stamp=$(printf '%s' "$requirements" | "$base" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')
    if [ "$base" = "$python" ] && [ "$(cat "$folder/requirements.stamp" 2>/dev/null)" = "$stamp" ]; then
        return
    fi
    if [ "$base" != "$python" ] || ! "$python" -m pip --version >/dev/null 2>&1; then
        [ "$base" = "$python" ] && { base=$(find_python) || fail "needs Python 3.11 or later"; }
        "$base" -c 'import ensurepip, venv' 2>/dev/null ||
            fail "this Python cannot make virtual environments; install python3-venv (Debian, Ubuntu: apt install python3-venv)"
        rm -rf "$folder"
        "$base" -m venv "$folder" || fail "cannot make a virtual environment in $folder"
    fi
    echo "Installing what is needed into $folder ..." >&2
    printf '%s\n' "$requirements" | "$python" -m pip install --quiet --disable-pip-version-check -r /dev/stdin ||
        fail "cannot install the requirements"
    # Last: an interrupted installation has no stamp and is done again.
    printf '%s\n' "$stamp" >"$folder/requirements.stamp"
}
