# Every limit on cgroup 2, as whoever runs this.
busybox
in_box() { rbuild run --rm "$@" 2>&1 | tr '\n' ' '; }
same memory '67108864 67108864 ' "$(in_box -m 64m busybox cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory.swap.max)"
same 'memory and swap' '67108864 37748736 ' "$(in_box -m 64m --memory-swap 100m busybox cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory.swap.max)"
same 'swap without limit' 'max ' "$(in_box -m 64m --memory-swap -1 busybox cat /sys/fs/cgroup/memory.swap.max)"
same reservation '16777216 ' "$(in_box --memory-reservation 16m busybox cat /sys/fs/cgroup/memory.low)"
same pids '50 ' "$(in_box --pids-limit 50 busybox cat /sys/fs/cgroup/pids.max)"
same 'the only cgroup inside' '0::/ ' "$(in_box -m 64m busybox cat /proc/self/cgroup)"
if [ "$(id -u)" = 0 ]; then
    same cpus '50000 100000 ' "$(in_box --cpus 0.5 busybox cat /sys/fs/cgroup/cpu.max)"
    same shares '20 ' "$(in_box -c 512 busybox cat /sys/fs/cgroup/cpu.weight)"
    same cpuset '0 ' "$(in_box --cpuset-cpus 0 busybox cat /sys/fs/cgroup/cpuset.cpus)"
fi
rbuild run -d --name oom -m 16m busybox tail /dev/zero >/dev/null
same 'exit code of a killed one' 137 "$(rbuild wait oom)"
same OOMKilled 'true 137' "$(state oom '{{.State.OOMKilled}} {{.State.ExitCode}}')"

rbuild run -d --name limited -m 32m busybox sleep 1000 >/dev/null
rbuild run -d --name free busybox sleep 1000 >/dev/null
same stats '32MiB' "$(rbuild stats --no-stream --format '{{.MemUsage}}' limited | sed 's|.* / ||')"
for name in limited free; do
    rbuild pause $name >/dev/null
    same "pause $name" paused "$(state $name '{{.State.Status}}')"
    rbuild unpause $name >/dev/null
    same "unpause $name" running "$(state $name '{{.State.Status}}')"
    same "exec in $name" hello "$(rbuild exec $name echo hello 2>&1)"
done
rbuild update -m 40m limited >/dev/null
if [ "$(id -u)" = 0 ]; then systemctl daemon-reload; else systemctl --user daemon-reload; fi
sleep 1
same 'the limit after a reload' 41943040 "$(rbuild exec limited cat /sys/fs/cgroup/memory.max)"
place=/sys/fs/cgroup$(cgroup_of limited)
kill -9 "$(awk '/PPid/ { print $2 }' "/proc/$(state limited '{{.State.Pid}}')/status")"
soon 'the monitor is gone' sh -c 'rbuild inspect -f "{{.State.Status}}" limited | grep exited'
same 'exit code after the end of the monitor' 137 "$(state limited '{{.State.ExitCode}}')"
soon "its cgroup $place is gone" test ! -d "$place"
rbuild rm -f oom limited free >/dev/null

mkdir -p "$HOME/ctx"
printf 'FROM busybox\nRUN cat /sys/fs/cgroup/memory.max >/limit && echo %s\n' "$$ $(id -u)" >"$HOME/ctx/Dockerfile"
rbuild build -q -t app -m 50m "$HOME/ctx" >/dev/null
same 'limit of a step' 52428800 "$(rbuild run --rm app cat /limit)"
