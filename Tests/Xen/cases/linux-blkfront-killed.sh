# limit: 600
# needs: fio
# Our block back end killed again and again under Linux's own front end, which writes and verifies at full depth with all that both
# have: the guest notices nothing but pauses.
. /payload/functions

kills=24

noise() { dmesg | grep -Eic 'xvda.*(error|fail|invalid|hung)|blkfront.*(error|fail|bad|refused)|I/O error|blocked for more' || true; }

# Linux allocates pages for all slots at their largest: 65 MB of them here.
load xen-blkfront max_ring_page_order=2 max_indirect_segments=64
# A block device and not a file in memory, so that requests are under way in the kernel, and completed in any order.
modprobe loop
truncate -s 96M disk
losetup /dev/loop0 disk
serve_disk disk --image /dev/loop0
grep -q 'with io_uring, past the page cache' log || { cat log; fail "the image is read and written another way"; }
agreed queues 2 4 2
agreed 'ring pages' 4 16 4
agreed feature-persistent yes yes on
is "the segments of a request" "$(cat /sys/block/xvda/queue/max_segments)" 64
before_kills=$(noise)

# Each block that was written is read again as soon as 64 more are written, and must be just what was written last.
cat > workload << 'END'
[global]
filename=/dev/xvda
ioengine=libaio
direct=1
rw=randwrite
time_based
runtime=8
verify=crc32c
verify_backlog=64
verify_fatal=1
verify_async=0
[small-0]
bs=4k
iodepth=24
size=24M
offset=0
cpus_allowed=0
[small-1]
bs=4k
iodepth=24
size=24M
offset=24M
cpus_allowed=1
[large]
bs=256k
iodepth=4
size=48M
offset=48M
END
{ until [ -e enough ]; do fio workload >> fio.log 2>&1 || exit 1; done; } &
writer=$!
sleep 3
killed=0
while [ $killed -lt $kills ]; do
  usleep $((200000 + $(od -An -N2 -tu2 /dev/urandom) * 20))
  kill -9 $server
  wait $server || true
  killed=$((killed + 1))
  is "the states after a kill" "$(xenstore-read $front/state) $(xenstore-read $back/state)" '4 4'
  start_server --image /dev/loop0
done
touch enough
wait $writer || { cat fio.log; fail "fio has failed, or found blocks that are not what it wrote"; }
grep -E 'err=|IOPS' fio.log
if grep -q 'err= *[1-9]' fio.log; then cat fio.log; fail "fio saw an error"; fi
is "the number of complaints of the kernel" "$(noise)" "$before_kills"
grep -h 'had no answer' log
hits=$(grep -c "had no answer" log)
[ "$hits" -ge 3 ] || fail "only $hits of $kills kills fell on requests that were under way"
# Past the page cache, all of it.
dd if=/dev/xvda of=again bs=1M iflag=direct
same "what Linux reads in the end is not what the image holds" again disk
end_disk
losetup -d /dev/loop0
