#!/bin/sh
# rd.repot=MEDIUM:IMAGE on the kernel command line takes the place of root=.
command -v getarg > /dev/null || . /lib/dracut-lib.sh

repot=$(getarg rd.repot=)
if [ -n "$repot" ]; then
    # shellcheck disable=SC2034 # read by dracut
    root=repot rootok=1
    repot=$(label_uuid_to_dev "${repot%%:*}")
    # dracut waits for the device before it runs the hooks for the mount.
    wait_for_dev "$repot"
fi
