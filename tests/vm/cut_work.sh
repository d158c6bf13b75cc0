# Works until the power is cut, and says what is done: a word for each command that has returned. $CUT is the number of the cut.
say() { echo "done $*"; }
busybox || exit 1
mkdir -p /root/work
cd /root/work || exit 1
n=0
# from here on the seconds count until the power is cut
echo started >/dev/virtio-ports/code
while :; do
    n=$((n + 1))
    id=$CUT-$n
    rbuild tag busybox "tag:$id" && say image "tag:$id"
    mkdir -p "ctx"
    printf 'FROM busybox\nCOPY Dockerfile /d\nRUN dd if=/dev/urandom of=/r bs=64k count=40 2>/dev/null; echo %s\n' "$id" >ctx/Dockerfile
    rbuild build -q -t "built:$id" ctx >/dev/null && say built "built:$id"
    rbuild save -o saved.tar "built:$id" && rbuild rmi -f "built:$id" >/dev/null && say gone "built:$id" &&
        rbuild load -i saved.tar >/dev/null && say image "built:$id"
    rbuild import saved.tar "imported:$id" >/dev/null && say image "imported:$id"
    rbuild volume create "v$id" >/dev/null && say volume "v$id"
    rbuild run -d --name "run$id" --restart always -v "v$id:/v" busybox sh -c 'while :; do date >>/v/log; done' >/dev/null && say container "run$id"
    rbuild create --name "made$id" busybox true >/dev/null && say container "made$id"
    rbuild run --name "ended$id" busybox sh -c 'echo x >/x; exit 7'
    [ $? != 7 ] || say ended "ended$id"
    rbuild commit "ended$id" "committed:$id" >/dev/null && say image "committed:$id"
    rbuild network create "net$id" >/dev/null && say network "net$id"
    rbuild rm -f "run$id" >/dev/null && say removed "run$id"
    rbuild run -d --name "last$id" --network "net$id" -p 0:80 busybox sleep 1000 >/dev/null && say container "last$id"
done
