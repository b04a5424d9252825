# Our block front end on a disk of Linux's own back end that becomes larger and smaller while it is written.
. /payload/functions

resize() {  # SIZE
  truncate -s "$1" disk
  losetup -c /dev/loop0
  wait_for "the front end knows the new size" grep -q "^the disk has $(($(stat -c %s disk) / 512)) sectors" log
  is "the states" "$(xenstore-read $front/state) $(xenstore-read $back/state)" '4 4'
}

modprobe loop
modprobe xen-blkback
truncate -s 8M disk
dd if=/dev/urandom of=new bs=1M count=4
make_linux_disk
# Linux looks at the size of its block device when there is a request.
blk-front $front rewrite new > log &
program=$!
wait_for "the first round is written" grep -q '^round 1 is' log
resize 16M
resize 12M
kill -TERM $program
wait $program || { cat log; fail "blk-front ended with failure"; }
cat log | head -n 40
has_let_go
write_and_read_back
is "the size of what was read" "$(stat -c %s got)" $((12 << 20))
remove_linux_disk
