# Our block front end on a disk of Linux's own back end with two queues, each with a ring of sixteen pages.
. /payload/functions

# Two rings, and two pools of 352 pages beside them.
limit=/sys/module/xen_gntalloc/parameters/limit
echo 4096 > $limit
trap 'echo 1024 > $limit' EXIT
modprobe loop
load xen-blkback max_ring_page_order=4
truncate -s 12M disk
make_linux_disk
dmesg -c > /dev/null
write_and_read_back --queues 2 --ring-order 4
agreed 'ring pages' 16 16 16
agreed queues 2 2 2
kernel_says 'xen-blkback: backend/vbd/0/51712: using 2 queues, protocol 1 \(x86_64-abi\)' || fail "Linux does not use two queues"
is "the front end's order of ring pages" "$(xenstore-read $front/ring-page-order)" 4
is "the front end's number of queues" "$(xenstore-read $front/multi-queue-num-queues)" 2
for queue in 0 1; do xenstore-read $front/queue-$queue/ring-ref15 $front/queue-$queue/event-channel; done

# The same as 32-bit front ends lay it out.
write_and_read_back --protocol x86_32-abi --queues 2 --ring-order 4
agreed 'ring pages' 16 16 16
agreed queues 2 2 2
# Nothing of them is left for one that has neither.
write_and_read_back
agreed 'ring pages' 1 16 1
agreed queues 1 2 1
remove_linux_disk
