# Our block front end on a disk of Linux's own back end: every byte, and back again after leaving and after a kill.
. /payload/functions

# Linux's own front end claims what lies below device/.
front=/local/domain/0/udevice/vbd/51712
back=/local/domain/0/backend/vbd/0/51712

make_disk() {  # MODE
  losetup /dev/loop0 disk
  xenstore-write $back/frontend $front $back/frontend-id 0 $back/online 1 $back/mode "$1" $back/type phy \
    $back/dev xvda $back/physical-device "$(stat -c %t:%T /dev/loop0)" $back/state 1 \
    $front/backend $back $front/backend-id 0 $front/virtual-device 51712 $front/device-type disk $front/state 1
}

remove_disk() {
  xenstore-rm $back
  xenstore-rm $front
  losetup -d /dev/loop0
  # As long as anybody holds the loop device it keeps its file.
  wait_for "the back end has let go of the loop device" test ! -e /sys/block/loop0/loop
}

has_let_go() {
  case $(xenstore-read $back/state) in 2 | 6) ;; *) fail "the back end stays in state $(xenstore-read $back/state)" ;; esac
}

modprobe loop
modprobe xen-blkback
dd if=/dev/urandom of=disk bs=1M count=12
dd if=/dev/urandom of=new bs=1M count=12
dd if=/dev/urandom of=newer bs=1M count=12

make_disk w
blk-front $front read got | tee log
for feature in feature-flush-cache feature-barrier; do
  grep -Eq "^$feature +yes +yes +on" log || fail "$feature is not agreed on"
done
[ "$(sha256sum < got)" = "$(sha256sum < disk)" ] || fail "what was read is not what the disk holds"
has_let_go
blk-front $front write new
same "what was written is not what the disk holds" new disk
has_let_go
blk-front $front barrier newer
same "what barriers wrote is not what the disk holds" newer disk
has_let_go

# The same backend for a front end that was compiled for 32 bits, and for one that says what is native.
for layout in x86_32-abi x86_64-abi; do
  dd if=/dev/urandom of=other bs=1M count=12
  blk-front --protocol $layout $front write other | tee log
  grep -Eq "^protocol +$layout .* $layout\$" log || fail "$layout is not what was spoken"
  same "what was written as $layout is not what the disk holds" other disk
  has_let_go
  rm -f got
  blk-front --protocol $layout $front read got
  same "what was read as $layout is not what the disk holds" disk got
  has_let_go
done

# Killed in the middle of writing the same bytes again and again; another process comes.
blk-front $front rewrite new > log &
program=$!
wait_for "the first round is written" grep -q '^round 2 is' log
kill -9 $program
wait $program || true
[ "$(xenstore-read $front/state) $(xenstore-read $back/state)" = "4 4" ] || fail "the keys noticed the kill"
rm got
blk-front $front read got
same "what was read after the kill is not what the disk holds" disk got
same "the killed program's writes are lost" new got
has_let_go
remove_disk

make_disk r
rm got
blk-front $front read got
same "what was read is not what the read-only disk holds" disk got
blk-front $front refuse
same "a read-only disk was written" new disk
has_let_go
remove_disk
