# Our block front end on a disk of Linux's own back end with indirect requests, and without.
. /payload/functions

limit=/sys/module/xen_gntalloc/parameters/limit
echo 16384 > $limit
trap 'echo 1024 > $limit' EXIT
# How many writes have reached the block device behind Linux's back end (Linux, Documentation/block/stat.rst).
writes() { awk '{ print $5 }' /sys/block/loop0/stat; }

modprobe loop
modprobe xen-blkback
truncate -s 12M disk
make_linux_disk
before=$(writes)
write_and_read_back --indirect 256 --pool 2600
agreed feature-max-indirect-segments 256 256 256
# A direct request carries 88 sectors.
[ $(($(writes) - before)) -lt $((24576 / 88)) ] || fail "12 MiB are $(($(writes) - before)) writes, as if direct ones carried them"
remove_linux_disk

make_linux_disk
before=$(writes)
write_and_read_back --indirect 0
agreed feature-max-indirect-segments 0 256 off
[ $(($(writes) - before)) -gt $((24576 / 88)) ] || fail "12 MiB are $(($(writes) - before)) writes of 11 segments"
remove_linux_disk
