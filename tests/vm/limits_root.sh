# Places of cgroups, then all limits again as an ordinary user: in a session, with su, with lingering.
busybox
rbuild run -d --name slice --cgroup-parent system.slice --cpus 0.3 --cpuset-cpus 1 busybox sleep 1000 >/dev/null
case $(cgroup_of slice) in /system.slice/rbuild/*) ;; *) same slice /system.slice/rbuild/... "$(cgroup_of slice)" ;; esac
systemctl daemon-reload
sleep 1
same 'processor time after a reload' '30000 100000' "$(rbuild exec slice cat /sys/fs/cgroup/cpu.max)"
same 'processors after a reload' 1 "$(rbuild exec slice cat /sys/fs/cgroup/cpuset.cpus)"
rbuild rm -f slice >/dev/null

chmod 755 /rbuild-vm/part
# The scripts of the user's say their failures themselves.
user() {
    echo "-- $1"
    shift
    "$@" 2>&1 | sed 's/^/   /' | tee /tmp/said
    same "the user's limits" 1 "$(grep -c 'failures: 0' /tmp/said)"
}
session="systemd-run --quiet --wait --pipe --collect -p User=rbuild-test -p PAMName=login -p WorkingDirectory=/home/rbuild-test"
user 'in a session' $session /bin/sh /rbuild-vm/part
# the user's systemd stays some seconds longer
soon 'the session is over' test ! -e /run/user/1500/systemd/private
same 'limit without a session' 1 "$(as_user rbuild run --rm -m 64m busybox true 2>&1 | grep -c 'loginctl enable-linger')"
loginctl enable-linger rbuild-test
soon 'it lingers' test -e /run/user/1500/systemd/private
user 'with su, lingering' as_user sh /rbuild-vm/part
