# Containers of every policy, then the machine goes down.
busybox
box() { rbuild run -d --name "$@" busybox sh -c 'trap "exit 0" TERM; sleep 100000 & wait' >/dev/null; }
box always --restart always -p 8081:80 -m 64m
box unless --restart unless-stopped
box halted --restart unless-stopped
box ended --restart always
box plain
box failing --restart on-failure
rbuild create --name fresh --restart always busybox sleep 1000 >/dev/null
rbuild network create net >/dev/null
box first --restart always --network net
box second --restart unless-stopped --network container:first
box passing --rm
rbuild stop halted ended >/dev/null
rbuild system boot --install
loginctl enable-linger rbuild-test
soon 'the user lingers' test -e /run/user/1500/systemd/private
as_user rbuild import /bases/busybox.tar busybox >/dev/null
as_user rbuild run -d --name users --restart always -p 8082:80 -m 32m busybox sleep 1000 >/dev/null
as_user rbuild system boot --install
finish
