# Our block front end on a disk of Linux's own back end with indirect requests, and without.
. /payload/functions

limit=/sys/module/xen_gntalloc/parameters/limit
echo 16384 > $limit
trap 'echo 1024 > $limit' EXIT
# statistic NAME   Linux's own count
statistic() { cat /sys/bus/xen-backend/devices/vbd-0-51712/statistics/$1; }

modprobe loop
modprobe xen-blkback
truncate -s 12M disk
make_linux_disk
write_and_read_back --indirect 256 --pool 2600
agreed feature-max-indirect-segments 256 256 256
writes=$(statistic wr_req)
[ $((24576 / writes)) -gt 88 ] || fail "12 MiB are $writes writes, as if direct ones carried them"
remove_linux_disk

make_linux_disk
write_and_read_back --indirect 0
agreed feature-max-indirect-segments 0 256 off
[ "$(statistic wr_req)" -gt $((24576 / 88)) ] || fail "12 MiB are $(statistic wr_req) writes of 11 segments"
remove_linux_disk
