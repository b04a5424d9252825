# A PV guest whose disk and whose network card are served by our back ends: a file system made, filled and checked on the
# one, TCP both ways through the other, and nothing left of the guest when it has turned itself off.
. /payload/functions

mac=00:16:3e:0a:0b:0c
cat > script << 'SCRIPT'
. /payload/functions
wait_for "the disk is there" test -b /dev/xvda
wait_for "the card is there" test -e /sys/class/net/eth0
ip addr add 10.9.0.2/24 dev eth0
ip link set eth0 up
modprobe ext4

sums() { (cd /mnt && find folder -type f | sort | xargs sha256sum); }
mkfs.ext4 -q /dev/xvda
mount -t ext4 /dev/xvda /mnt
mkdir /mnt/folder
dd if=/dev/urandom of=/mnt/folder/random bs=1M count=2
for number in $(seq 30); do echo "file $number" > /mnt/folder/$number; done
sums > /mnt/sums
umount /mnt
e2fsck -f -n /dev/xvda

# Everything anew from the disk.
echo 3 > /proc/sys/vm/drop_caches
mount -t ext4 /dev/xvda /mnt
sums | cmp - /mnt/sums || fail "the files are not what was written"
nc 10.9.0.1 5000 < /mnt/folder/random
receive /mnt/received
wait $receiver
umount /mnt
SCRIPT

modprobe tun
truncate -s 24M disk
xen-blkback watch --type ublk > blk.log 2>&1 &
blk_server=$!
start_guest traveller script
disk=/local/domain/0/backend/ublk/$domain/51712 card=/local/domain/0/backend/unet/$domain/0
net-back $card tap0 > net.log 2>&1 &
net_server=$!
set_up tap0 10.9.0.1
receive sent
printf '%s\n' 'front virtual-device 51712' 'front device-type disk' "back params $PWD/disk" > keys
make_device /local/domain/$domain/device/vbd/51712 $disk $domain keys
printf '%s\n' 'front handle 0' "front mac $mac" 'back handle 0' "back mac $mac" > keys
make_device /local/domain/$domain/device/vif/0 $card $domain keys
wait_for_state $disk 4
wait_for_state $card 4

dd if=/dev/urandom of=answer bs=1M count=2
wait $receiver
wait_for "the guest takes the answer" sh -c 'nc 10.9.0.2 5000 < answer'
end_guest traveller

# What is on the disk, without the guest's word for it.
e2fsck -f -n disk
modprobe loop
modprobe ext4
mount -o loop,ro disk /mnt
(cd /mnt && sha256sum -c -s sums) || fail "the image does not hold the guest's files"
[ "$(wc -l < /mnt/sums)" = 31 ] || fail "the image holds $(wc -l < /mnt/sums) files"
same "what the guest sent is not what it has" sent /mnt/folder/random
same "what the guest has received is not what was sent" answer /mnt/received
umount /mnt

# The toolstack takes the back ends' halves away.
xenstore-rm /local/domain/0/backend/ublk
xenstore-rm /local/domain/0/backend/unet
wait $net_server || { cat net.log; fail "net-back ended with failure"; }
kill $blk_server
wait $blk_server || { cat blk.log; fail "xen-blkback ended with failure"; }
cat blk.log net.log
if lsevtchn 0 | grep "Domain $domain,"; then fail "event channels to the guest are left"; fi
