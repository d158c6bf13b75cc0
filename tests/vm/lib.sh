# What the scripts that run inside the virtual machine share; written before each of them.
failures=0
# same WHAT WANTED GOT
same() {
    [ "$2" = "$3" ] && return
    echo "FAILED: $1: wanted <$2>, got <$3>"
    failures=$((failures + 1))
}
# soon WHAT COMMAND...: waits until the command succeeds
soon() {
    what=$1
    shift
    for _ in $(seq 300); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.2
    done
    echo "FAILED: $what: not within a minute"
    failures=$((failures + 1))
}
finish() {
    rbuild system check || failures=$((failures + 1))
    echo "failures: $failures"
    exit $((failures > 0))
}
state() { rbuild inspect -f "$2" "$1" 2>&1; }
cgroup_of() { sed 's/^0:://' "/proc/$(state "$1" '{{.State.Pid}}')/cgroup"; }
# As the user would be logged in: with the run-time directory of the user, if there is one, and not that of whoever calls.
as_user() {
    runuser -u rbuild-test -- env -u XDG_RUNTIME_DIR HOME=/home/rbuild-test \
        $([ ! -d /run/user/1500 ] || echo XDG_RUNTIME_DIR=/run/user/1500) "$@"
}
busybox() { [ -n "$(rbuild images -q busybox)" ] || rbuild import /bases/busybox.tar busybox >/dev/null; }
