# Our block back end under Linux's own front end with indirect requests: a mebibyte is one.
. /payload/functions

# Linux's front end makes no more of them than 32 segments unless it is told to.
load xen-blkfront max_indirect_segments=256
dd if=/dev/urandom of=disk bs=1M count=16
serve_disk disk
agreed feature-max-indirect-segments 'not said' 256 256
is "the segments of a request" "$(cat /sys/block/xvda/queue/max_segments)" 256
is "the KiB of a request" "$(cat /sys/block/xvda/queue/max_hw_sectors_kb)" 1024
echo 1024 > /sys/block/xvda/queue/max_sectors_kb
dd if=/dev/urandom of=new bs=1M count=16
dd if=new of=/dev/xvda bs=1M oflag=direct
same "what Linux wrote is not what the image holds" new disk
dd if=/dev/xvda of=again bs=1M iflag=direct
same "what Linux reads is not what it wrote" new again
end_disk
is "the number of writes of 16 MiB" "$(done_by_server writes)" 16
# Linux looks for partitions, too.
[ "$(done_by_server reads)" -le 48 ] || fail "16 MiB are $(done_by_server reads) reads"

# Not offered, a request has the 11 segments of its slot, and 16 MiB are 373 of them or more.
serve_disk disk --indirect 0
agreed feature-max-indirect-segments 'not said' 0 off
is "the segments of a request" "$(cat /sys/block/xvda/queue/max_segments)" 11
read_and_write
end_disk
[ "$(done_by_server writes)" -ge 373 ] || fail "16 MiB are $(done_by_server writes) writes of 11 segments"
