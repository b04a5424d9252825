# Our block back end under Linux's own front end: every byte read and written, and unplugged as a toolstack does it. Once with
# flushes, which Linux prefers, and once with barriers alone.
. /payload/functions

back=/local/domain/0/backend/ublk/0/51712
front=/local/domain/0/device/vbd/51712

modprobe xen-blkfront

# serve DONE OPTION...   and what the back end says at the end that it has done
serve() {
  done=$1
  shift
  dd if=/dev/urandom of=disk bs=1M count=16
  # Both halves in one call, which is one transaction: Linux looks at a new device once, and drops a half without the other.
  # The back end is not called vbd, because Linux's own would claim it.
  xenstore-write $back/frontend $front $back/frontend-id 0 $back/online 1 $back/state 1 \
    $front/backend $back $front/backend-id 0 $front/virtual-device 51712 $front/device-type disk $front/state 1
  xen-blkback serve $back --image disk "$@" > log 2>&1 &
  server=$!
  wait_for_state $front 4
  # Linux says so before it makes the disk.
  wait_for "xvda is there" test -b /dev/xvda

  [ "$(sha256sum < disk)" = "$(sha256sum < /dev/xvda)" ] || fail "what Linux reads is not what the image holds"
  dd if=/dev/urandom of=new bs=1M count=16
  dd if=new of=/dev/xvda bs=1M conv=fsync
  [ "$(sha256sum < new)" = "$(sha256sum < disk)" ] || fail "what Linux wrote is not what the image holds"
  # Past the page cache, so that the device is asked again.
  dd if=/dev/xvda of=again bs=64k iflag=direct
  same "what Linux reads again is not what it wrote" new again

  xenstore-write $back/online 0 $back/state 5
  wait_for_state $front 6
  wait_for_state $back 6
  wait $server
  cat log
  grep -q "$done" log || fail "the back end has not done \"$done\""
  xenstore-rm $back
  xenstore-rm $front
  wait_for "xvda has gone" test ! -e /sys/block/xvda
}

serve ' 0 of them barriers, [1-9][0-9]* flushes'
serve ' [1-9][0-9]* of them barriers, 0 flushes' --barriers-only
