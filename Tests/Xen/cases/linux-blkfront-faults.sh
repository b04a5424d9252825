# Our block back end under Linux's own front end, when something is refused, is missing or ends.
. /payload/functions

back=/local/domain/0/backend/ublk/0/51712
front=/local/domain/0/device/vbd/51712

make_disk() {
  xenstore-write $back/frontend $front $back/frontend-id 0 $back/online 1 $back/state 1 \
    $front/backend $back $front/backend-id 0 $front/virtual-device 51712 $front/device-type disk $front/state 1
}

remove_disk() {
  xenstore-rm $back
  xenstore-rm $front
  wait_for "xvda has gone" test ! -e /dev/xvda
}

lacks() { ! xenstore-exists "$1"; }

modprobe xen-blkfront
dd if=/dev/urandom of=disk bs=1M count=16
cp disk original

# Read-only.
make_disk
xen-blkback serve $back --image disk --read-only --close &
server=$!
wait_for_state $front 4
wait_for "xvda is there" test -b /dev/xvda
[ "$(blockdev --getro /dev/xvda)" = 1 ] || fail "Linux does not know that the disk is read-only"
if dd if=/dev/zero of=/dev/xvda bs=4k count=1 conv=fsync; then fail "Linux wrote to a read-only disk"; fi
[ "$(sha256sum < /dev/xvda)" = "$(sha256sum < original)" ] || fail "what Linux reads is not what the image holds"
same "the image has changed" original disk
# Idle, and told to end: the guest is asked to let go, and both ends close.
kill $server
wait $server || fail "xen-blkback ended with failure"
wait_for_state $front 6
wait_for_state $back 6
remove_disk

# An image that has lost its end: the error is one request's, the disk goes on with what is there, and Linux learns its size.
make_disk
xen-blkback serve $back --image disk --close &
server=$!
wait_for_state $front 4
wait_for "xvda is there" test -b /dev/xvda
truncate -s 8M disk
if dd if=/dev/xvda of=beyond bs=4k skip=3000 count=1 iflag=direct; then fail "Linux read what the image has lost"; fi
dd if=/dev/xvda of=got bs=64k count=128 iflag=direct
truncate -s 8M original
same "what Linux reads after the error is not what the image holds" original got
[ "$(cat /sys/block/xvda/size)" = 16384 ] || fail "Linux takes the disk for $(cat /sys/block/xvda/size) sectors"
dd if=/dev/urandom of=new bs=64k count=4
dd if=new of=/dev/xvda bs=64k seek=124 oflag=direct
dd if=disk of=got bs=64k skip=124
same "what Linux wrote after the error is not what the image holds" new got
kill $server
wait $server || fail "xen-blkback ended with failure"
wait_for_state $front 6
wait_for_state $back 6
remove_disk

# No image.
make_disk
xen-blkback serve $back --image nowhere --close > log 2>&1 &
server=$!
node=/local/domain/0/error/backend/ublk/0/51712/error
wait_for "the reason is where toolstacks look" xenstore-exists $node
xenstore-read $node | tee reason
grep -q "the image nowhere cannot be opened" reason
wait_for_state $front 6
wait_for_state $back 6
[ ! -e /dev/xvda ] || fail "Linux has a disk without an image"
kill $server
wait $server || { cat log; fail "xen-blkback ended with failure"; }
remove_disk
# With the image there, the device made anew works.
make_disk
xen-blkback serve $back --image disk --close &
server=$!
wait_for_state $front 4
wait_for "xvda is there" test -b /dev/xvda
[ "$(sha256sum < /dev/xvda)" = "$(sha256sum < disk)" ] || fail "what Linux reads is not what the image holds"
kill $server
wait $server || fail "xen-blkback ended with failure"
remove_disk

# One program for every disk. A front end that writes rubbish is told so, in one sentence, and the other one is served.
xen-blkback watch --type ublk --close 2> log &
server=$!
strange=/local/domain/0/udevice/vbd/51728
xenstore-write ${back%/*}/51728/frontend $strange ${back%/*}/51728/frontend-id 0 ${back%/*}/51728/online 1 \
  ${back%/*}/51728/params "$PWD/original" ${back%/*}/51728/state 1 \
  $strange/backend ${back%/*}/51728 $strange/backend-id 0 $strange/ring-ref "minus one" $strange/event-channel 7 $strange/state 3
xenstore-write $back/params "$PWD/disk"
make_disk
wait_for_state $front 4
wait_for "xvda is there" test -b /dev/xvda
wait_for_state ${back%/*}/51728 5
xenstore-read /local/domain/0/error/backend/ublk/0/51728/error | grep 'ring-ref holds "minus one" where a number'
[ "$(grep -c 51728.*ring-ref log)" = 1 ] || { cat log; fail "the reason is not said once"; }
# It turns into a honest one, which closes first.
xenstore-write $strange/state 6
wait_for_state ${back%/*}/51728 6
# It disappears, and with it every key that there was of its device.
xenstore-rm $strange
wait_for "the keys of the device have gone" lacks ${back%/*}/51728
[ "$(sha256sum < /dev/xvda)" = "$(sha256sum < disk)" ] || fail "the other disk suffered"
kill $server
wait $server || fail "xen-blkback ended with failure"
cat log
remove_disk
