# limit: 900
# needs: fio qdisk
# One disk image on a tmpfs, served in turn by Linux's xen-blkback (through a loop device), QEMU's qdisk and our BlkBack, to
# Linux's own xen-blkfront in the control domain; three rounds. Prints "TIMES ROUND BACKEND WORKLOAD IOPS".
. /payload/functions

front=/local/domain/0/device/vbd/51712

connect() {  # TYPE KEY VALUE...
  back=/local/domain/0/backend/$1/0/51712
  shift
  while [ $# -gt 0 ]; do
    xenstore-write "$back/$1" "$2"
    shift 2
  done
  # Without its state a device is not looked at.
  xenstore-write $back/frontend $front $back/frontend-id 0 $back/online 1 $back/mode w $back/dev xvda $back/state 1 \
    $front/backend $back $front/backend-id 0 $front/virtual-device 51712 $front/device-type disk $front/state 1
}

measure() {  # BACKEND
  wait_for_state $front 4
  wait_for "xvda is there" test -b /dev/xvda
  for workload in read write randread randwrite; do
    # Fields 8 and 49 of fio's terse output (version 3) are reads and writes a second.
    figure=$(fio --name=x --filename=/dev/xvda --rw=$workload --bs=4k --iodepth=32 --ioengine=libaio --direct=1 \
      --time_based --runtime=3 --output-format=terse | awk -F';' '$1 == 3 { print $8 + $49 }')
    echo "TIMES $round $1 $workload ${figure%.*}"
  done
  xenstore-write $back/online 0 $back/state 5
  wait_for_state $front 6
  wait_for "the back end has closed" closed
  for directory in $back $front; do if xenstore-exists $directory; then xenstore-rm $directory; fi; done
  wait_for "xvda has gone" test ! -e /sys/block/xvda
}
# QEMU removes the keys of what it has closed.
closed() { ! xenstore-exists $back || state_is $back 6; }

modprobe loop
modprobe xen-blkback
modprobe xen-blkfront
dd if=/dev/urandom of=disk bs=1M count=64
qemu-system-xen -xen-domid 0 -xen-attach -name dom0 -nographic -M xenpv -daemonize -monitor none -serial none -parallel none \
  -nodefaults -no-user-config -pidfile qemu.pid

for round in 1 2 3; do
  losetup /dev/loop0 disk
  connect vbd type phy physical-device "$(stat -c %t:%T /dev/loop0)"
  measure xen-blkback
  wait_for "the loop device is free" losetup -d /dev/loop0

  connect qdisk device-type disk params "aio:$PWD/disk"
  measure qdisk

  connect ublk
  xen-blkback serve $back --image disk &
  server=$!
  measure BlkBack
  wait $server
done
kill "$(cat qemu.pid)"
