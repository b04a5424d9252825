# A PV guest destroyed in the middle of its disk's and its card's traffic: both back ends say so once and let go of all that
# is the guest's, and another disk of the same program works on meanwhile and afterwards.
. /payload/functions

mac=00:16:3e:0a:0b:0c
cat > script << 'SCRIPT'
. /payload/functions
wait_for "the disk is there" test -b /dev/xvda
wait_for "the card is there" test -e /sys/class/net/eth0
ip addr add 10.9.0.2/24 dev eth0
ip link set eth0 up
while :; do dd if=/dev/zero of=/dev/xvda bs=64k oflag=direct 2> /dev/null || true; done &
while :; do dd if=/dev/xvda of=/dev/null bs=64k iflag=direct; done 2> /dev/null &
nc 10.9.0.1 5000 < /dev/zero &
sleep 1000
SCRIPT

modprobe tun
modprobe xen-blkfront
truncate -s 16M guests
dd if=/dev/urandom of=own bs=1M count=8
dd if=/dev/urandom of=new bs=1M count=8
dd if=/dev/urandom of=newer bs=1M count=8
xen-blkback watch --type ublk --close > blk.log 2>&1 &
blk_server=$!
printf '%s\n' 'front virtual-device 51728' 'front device-type disk' "back params $PWD/own" > keys
make_device /local/domain/0/device/vbd/51728 /local/domain/0/backend/ublk/0/51728 0 keys
wait_for_state /local/domain/0/backend/ublk/0/51728 4
handles=$(ls -l /proc/$blk_server/fd | grep -c /xen/)

start_guest doomed script
disk=/local/domain/0/backend/ublk/$domain/51712 card=/local/domain/0/backend/unet/$domain/0
net-back $card tap0 > net.log 2>&1 &
net_server=$!
set_up tap0 10.9.0.1
receive /dev/null
printf '%s\n' 'front virtual-device 51712' 'front device-type disk' "back params $PWD/guests" > keys
make_device /local/domain/$domain/device/vbd/51712 $disk $domain keys
printf '%s\n' 'front handle 0' "front mac $mac" 'back handle 0' "back mac $mac" > keys
make_device /local/domain/$domain/device/vif/0 $card $domain keys
has_received() { [ "$(cat /sys/class/net/tap0/statistics/rx_bytes)" -gt "$1" ]; }
wait_for "the guest's frames come" has_received 1000000
[ "$(ls -l /proc/$blk_server/fd | grep -c /xen/)" -gt "$handles" ] || fail "the guest's disk is not served"

# The other disk, before, during and after.
write_and_read() {
  dd if="$1" of=/dev/xvdb bs=64k oflag=direct
  dd if=/dev/xvdb of="$1.again" bs=64k iflag=direct
}
write_and_read new > other.log 2>&1 &
writer=$!
xl destroy "$domain"
no_zombie
wait $writer || { cat other.log; fail "the other disk failed"; }
same "what the other disk gives is not what was written" new new.again
same "what was written is not what the image holds" new own
write_and_read newer
same "what the other disk gives afterwards is not what was written" newer newer.again
same "what was written afterwards is not what the image holds" newer own

[ "$(ls -l /proc/$blk_server/fd | grep -c /xen/)" = "$handles" ] || fail "xen-blkback keeps handles of the guest's"
if lsevtchn 0 | grep "Domain $domain,"; then fail "event channels to the guest are left"; fi

# The toolstack that made the guest knows nothing of these devices: nobody else would remove them.
lacks() { ! xenstore-exists "$1"; }
wait_for "the keys of the guest's disk have gone" lacks "${disk%/*}"
wait_for "the keys of the guest's card have gone" lacks "${card%/*}"
wait $net_server || { cat net.log; fail "net-back ended with failure"; }
kill $blk_server
wait $blk_server || { cat blk.log; fail "xen-blkback ended with failure"; }
xenstore-rm /local/domain/0/backend/ublk
xenstore-rm /local/domain/0/device/vbd/51728
wait_for "the other disk has gone" test ! -e /sys/block/xvdb
cat blk.log net.log
# Besides how the image is used and that it was connected, and what net-back itself prints.
[ "$(grep "$disk: " blk.log | grep -vc -e ': the image is ' -e ': connected$')" = 1 ] || fail "xen-blkback has not said one sentence of the end"
[ "$(grep -c "$card: queue 0 disconnected; " net.log)" = 1 ] || fail "net-back has not said one sentence of the end"
