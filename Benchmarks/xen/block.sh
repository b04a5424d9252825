# limit: 1500
# needs: fio qdisk
# One file on a tmpfs, served at the same time by Linux's xen-blkback (through a loop device), QEMU's qdisk and our BlkBack, as
# three disks of Linux's own xen-blkfront in the control domain, which are measured in turn. Prints
# "TIMES ROUND BACKEND IOPS WORKLOAD".
. /payload/functions

rounds=9

connect() {  # NAME NUMBER TYPE KEY VALUE...
  front=/local/domain/0/device/vbd/$2 back=/local/domain/0/backend/$3/0/$2
  printf '%s\n' "front virtual-device $2" 'front device-type disk' 'back mode w' "back dev $1" > keys
  shift 3
  while [ $# -gt 0 ]; do
    echo "back $1 $2" >> keys
    shift 2
  done
  make_device $front $back 0 keys
}

measure() {  # BACKEND DISK WORKLOAD BLOCK DEPTH
  # Fields 8 and 49 of fio's terse output (version 3) are reads and writes a second.
  figure=$(fio --name=x --filename=/dev/$2 --rw=$3 --bs=$4k --iodepth=$5 --ioengine=libaio --direct=1 \
    --time_based --runtime=2 --output-format=terse | awk -F';' '$1 == 3 { print $8 + $49 }')
  echo "TIMES $round $1 ${figure%.*} $3 $4 KiB, depth $5"
}

modprobe loop
modprobe xen-blkback
modprobe xen-blkfront
dd if=/dev/urandom of=disk bs=1M count=64
qemu-system-xen -xen-domid 0 -xen-attach -name dom0 -nographic -M xenpv -monitor none -serial none -parallel none \
  -nodefaults -no-user-config > qemu.log 2>&1 &
qemu=$!

losetup /dev/loop0 disk
connect xvda 51712 vbd type phy physical-device "$(stat -c %t:%T /dev/loop0)"
connect xvdb 51728 qdisk device-type disk params "aio:$PWD/disk"
connect xvdc 51744 ublk params "$PWD/disk"
xen-blkback watch --type ublk > log 2>&1 &
server=$!
for disk in xvda xvdb xvdc; do
  wait_for "$disk is there" test -b /dev/$disk || { cat qemu.log log; xenstore-ls -f | grep 51728; exit 1; }
done
cat log

for round in $(seq $rounds); do
  for row in 'randread 4 1' 'randwrite 4 1' 'randread 4 32' 'randwrite 4 32' 'read 128 8' 'write 128 8'; do
    measure xen-blkback xvda $row
    measure qdisk xvdb $row
    measure BlkBack xvdc $row
  done
done
kill $server
wait $server
tail -n 1 log
kill $qemu
