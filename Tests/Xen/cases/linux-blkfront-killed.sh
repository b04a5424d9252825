# limit: 1800
# needs: fio
# Our block back end killed again and again under Linux's own front end, which writes and verifies at full depth: the guest notices
# nothing but pauses.
. /payload/functions

kills=12

noise() { dmesg | grep -Eic 'xvda.*(error|fail|invalid|hung)|blkfront.*(error|fail|bad|refused)|I/O error|blocked for more|Bad page|gntdev' || true; }

# Linux allocates pages for all slots at their largest: 65 MB of them here.
load xen-blkfront max_ring_page_order=2 max_indirect_segments=64
# A block device and not a file in memory, so that requests are under way in the kernel, and completed in any order.
modprobe loop
truncate -s 96M disk
losetup /dev/loop0 disk

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

# killed BACKEND AGREED WAY OPTION...   what the back end offers of persistent grants, and what comes of it; and the way in which the
# image is read and written, with these options
killed() {
  offered=$1 agreed=$2 way=$3
  shift 3
  rm -f enough fio.log
  serve_disk disk --image /dev/loop0 "$@"
  grep -q "with io_uring, $way the page cache" log || { cat log; fail "the image is read and written another way"; }
  agreed queues 2 4 2
  agreed 'ring pages' 4 16 4
  is "the segments of a request" "$(cat /sys/block/xvda/queue/max_segments)" 64
  agreed feature-persistent yes "$offered" "$agreed"
  before_kills=$(noise)
  { until [ -e enough ]; do fio workload >> fio.log 2>&1 || exit 1; done; } &
  writer=$!
  sleep 3
  # How many of them fall on requests that are under way is chance: on, until some have.
  count=0 hits=0
  until [ $count -ge $kills ] && [ "$hits" -ge 3 ]; do
    [ $count -lt $((10 * kills)) ] || fail "only $hits of $count kills fell on requests that were under way"
    usleep $((200000 + $(od -An -N2 -tu2 /dev/urandom) * 20))
    kill -9 $server
    wait $server || true
    is "the states after a kill" "$(xenstore-read $front/state) $(xenstore-read $back/state)" '4 4'
    start_server --image /dev/loop0 "$@"
    count=$((count + 1)) hits=$(grep -c "had no answer" log || true)
  done
  touch enough
  wait $writer || { cat fio.log; fail "fio has failed, or found blocks that are not what it wrote"; }
  grep -E 'err=|IOPS' fio.log
  if grep -q 'err= *[1-9]' fio.log; then cat fio.log; fail "fio saw an error"; fi
  is "the number of complaints of the kernel" "$(noise)" "$before_kills"
  grep -h 'had no answer' log
  # Past the page cache, all of it.
  dd if=/dev/xvda of=again bs=1M iflag=direct
  end_disk
  same "what Linux reads in the end is not what the image holds" again disk
}

# Not both at once: where a control domain is paravirtualized, Linux 5.19 and later, and what has had the same change since ("xen/gntdev:
# Avoid blocking in unmap_grant_pages()"), takes a killed process's tables apart before the pages that it had mapped and that are in
# direct I/O are unmapped, and is not well afterwards ("Bad page map"), whoever had them mapped.
killed yes on through --direct off
killed no off past --no-persistent
losetup -d /dev/loop0
