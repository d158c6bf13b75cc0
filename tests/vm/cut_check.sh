# After a power cut: is all there that was reported as done in /rbuild-vm/said?
[ -e /rbuild-vm/said ] || : >/rbuild-vm/said
rm -f /tmp/lost
lost() { echo "FAILED: lost: $*"; failures=$((failures + 1)); }
if ! rbuild system check >/tmp/check 2>&1; then
    echo "note: $(grep -vc '^$' /tmp/check) lines of system check, first: $(head -n 1 /tmp/check)"
    rbuild system check --repair >/tmp/repair 2>&1
    # layers of an image that was built just before may be lost for good, which is said; the build makes them again
    sed -n 's/^image \(built:[0-9-]*\): layer .* is lost;.*/\1/p' /tmp/repair | sort -u >/tmp/lost
    if [ -s /tmp/lost ]; then
        echo "note: built and lost: $(cat /tmp/lost)"
        xargs rbuild rmi -f </tmp/lost >/dev/null || failures=$((failures + 1))
    fi
    rbuild system check >/tmp/check 2>&1 || { echo "FAILED: system check after --repair:"; cat /tmp/repair /tmp/check; failures=$((failures + 1)); }
fi
# What was said between the last promise that counts and the cut is in /rbuild-vm/later, where the two are not one.
spoken=/rbuild-vm/later
[ -e "$spoken" ] || spoken=/rbuild-vm/said
forget() { grep -qsx "done $1" /rbuild-vm/said /rbuild-vm/later; }
while read -r _ kind name; do
    case $kind in
    image)
        # what was said of it last counts
        [ "$(grep -hx -e "done image $name" -e "done gone $name" "$spoken" | tail -n 1)" = "done gone $name" ] && continue
        case $name in
        imported:*) rbuild save -o /dev/null "$name" 2>/tmp/why || lost "$kind $name: $(cat /tmp/why)" ;;
        *) [ "$(rbuild run --rm --network none "$name" echo here 2>/tmp/why)" = here ] || lost "$kind $name: $(cat /tmp/why)" ;;
        esac ;;
    built)
        # the next commands take the name away
        forget "gone $name" && continue
        [ "$(tail -n 1 /rbuild-vm/said)" = "done built $name" ] && continue
        grep -qsx "$name" /tmp/lost && continue
        # its layers may be lost, which has to be said
        rbuild inspect "$name" >/dev/null 2>&1 || lost "the name $name"
        [ "$(rbuild run --rm --network none "$name" echo here 2>/tmp/why)" = here ] || echo "note: built image without its layers: $(head -n 1 /tmp/why)" ;;
    volume) rbuild volume inspect "$name" >/dev/null 2>&1 || lost "$kind $name" ;;
    network) rbuild network inspect "$name" >/dev/null 2>&1 || lost "$kind $name" ;;
    container)
        # the power may have failed while it was being removed
        case $name in run*) forget "network net${name#run}" && continue ;; esac
        case $(state "$name" '{{.State.Status}} {{.State.ExitCode}}') in
        'exited 255' | 'created 0') ;;
        'exited 137') case $name in run*) ;; *) lost "$kind $name: $(state "$name" '{{.State.Status}} {{.State.ExitCode}}')" ;; esac ;;
        *) lost "$kind $name: $(state "$name" '{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}')" ;;
        esac ;;
    ended) same "the end of $name" 'exited 7' "$(state "$name" '{{.State.Status}} {{.State.ExitCode}}')" ;;
    removed) rbuild inspect "$name" >/dev/null 2>&1 && lost "the removal of $name" ;;
    esac
done </rbuild-vm/said
echo "checked $(wc -l </rbuild-vm/said) reports"
last=$(rbuild ps -aq -f name=last | head -n 1)
if [ -n "$last" ]; then rbuild start "$last" >/dev/null || lost "the start of $last"; fi
# all can be taken away
all=$(rbuild ps -aq)
[ -z "$all" ] || rbuild rm -f $all >/dev/null || lost "the removal of all containers"
rbuild network prune -f >/dev/null
rbuild volume prune -af >/dev/null
rbuild images --format '{{.Repository}}:{{.Tag}}' | grep -E '^(tag|built|imported|committed):' | xargs -r rbuild rmi -f >/dev/null || lost "the removal of all images"
rbuild system check || failures=$((failures + 1))
echo "failures: $failures"
[ "$failures" = 0 ] || exit 1
