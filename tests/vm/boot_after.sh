# What runs after a boot; $1 is the exit code of what did not survive.
soon 'the unit has done its work' systemctl is-active rbuild-containers
soon "the user's container runs" sh -c 'runuser -u rbuild-test -- env HOME=/home/rbuild-test XDG_RUNTIME_DIR=/run/user/1500 rbuild ps --format "{{.Names}}" | grep users'
same containers 'always running,ended running,failing exited,first running,fresh created,halted exited,plain exited,second running,unless running' \
    "$(rbuild ps -a --format '{{.Names}} {{.State}}' | sort | paste -sd,)"
same 'a second time' '' "$(rbuild system boot 2>&1)"
[ -z "$EXPECTED" ] || same 'exit code' "$EXPECTED" "$(state plain '{{.State.ExitCode}}')"
same 'port' '0.0.0.0:8081' "$(rbuild port always 80 | head -n 1)"
same 'memory' 67108864 "$(rbuild exec always cat /sys/fs/cgroup/memory.max)"
case $(cat "/proc/$(state always '{{.State.Pid}}')/cgroup") in 0::/rbuild/*) ;; *) same cgroup 0::/rbuild/... "$(cgroup_of always)" ;; esac
rbuild start plain >/dev/null
same 'a start by hand' running "$(state plain '{{.State.Status}}')"
as_user rbuild system check || failures=$((failures + 1))
finish
