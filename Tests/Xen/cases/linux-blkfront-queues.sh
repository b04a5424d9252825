# Our block back end under Linux's own front end with two queues, each with a ring of sixteen pages.
. /payload/functions

load xen-blkfront max_ring_page_order=4
dd if=/dev/urandom of=disk bs=1M count=16
serve_disk disk
agreed 'ring pages' 16 16 16
agreed queues 2 4 2
is "the front end's order of ring pages" "$(xenstore-read $front/ring-page-order)" 4
is "the front end's number of queues" "$(xenstore-read $front/multi-queue-num-queues)" 2
for queue in 0 1; do xenstore-read $front/queue-$queue/ring-ref15 $front/queue-$queue/event-channel; done
is "the number of queues that Linux uses" "$(ls /sys/block/xvda/mq | wc -l)" 2
# 512 requests: 16 pages of 32.
is "the requests that Linux has in flight at most" "$(cat /sys/block/xvda/mq/0/nr_tags)" 512
is "the number of threads that serve" "$(cat /proc/$server/task/*/comm | grep -c '^disk-0-')" 2
read_and_write

# Both rings at once, each by a processor of its own.
for part in 0 1; do
  taskset $((part + 1)) dd if=/dev/urandom of=part-$part bs=1M count=8
  taskset $((part + 1)) dd if=part-$part of=/dev/xvda bs=64k seek=$((part * 128)) oflag=direct &
  eval "writer_$part=$!"
done
wait $writer_0
wait $writer_1
cat part-0 part-1 | cmp - disk || fail "what two processors wrote is not what the image holds"
end_disk

# As many as the options say.
serve_disk disk --queues 1 --ring-order 2
agreed 'ring pages' 4 4 4
agreed queues 1 1 1
if xenstore-exists $front/queue-0; then fail "Linux has a queue of a disk with one"; fi
read_and_write
end_disk
