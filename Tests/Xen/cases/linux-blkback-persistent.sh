# Our block front end on a disk of Linux's own back end, which keeps our pages mapped, or does not.
. /payload/functions

modprobe loop
modprobe xen-blkback
truncate -s 12M disk
make_linux_disk
dmesg -c > /dev/null
write_and_read_back --persistent
agreed feature-persistent yes yes on
is "what the front end says of persistent grants" "$(xenstore-read $front/feature-persistent)" 1
kernel_says 'xen-blkback: .*persistent grants' || fail "Linux does not keep pages mapped"

dmesg -c > /dev/null
write_and_read_back --no-persistent
agreed feature-persistent no yes off
if kernel_says 'xen-blkback: .*persistent grants'; then fail "Linux keeps pages mapped"; fi
kernel_says 'xen-blkback: .*using 1 queues' || fail "Linux does not say how it connected"
remove_linux_disk
