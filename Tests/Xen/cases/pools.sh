# Front ends at the limit of pages that the kernel shares for programs, and above it: those that come late get smaller pools,
# say so and what to raise, and work all the same.
. /payload/functions

limit=/sys/module/xen_gntalloc/parameters/limit

card() {  # NUMBER full|short   a card that pings and is pinged, and stays
  front=/local/domain/0/udevice/vif/$1 back=/local/domain/0/backend/vif/0/$1 mac=00:16:3e:0a:0b:0$1
  printf '%s\n' "front mac $mac" "front handle $1" "back mac $mac" "back handle $1" 'back script none' \
    'back hotplug-status connected' > keys
  make_device $front $back 0 keys
  set_up vif0.$1 10.9.$1.1
  net-front-ping $front 10.9.$1.2 10.9.$1.1 20 /sys/class/net/vif0.$1/statistics > log$1 &
  programs="$programs $!"
  wait_for "card $1 answers pings" grep -q '^answering' log$1 || { cat log$1; fail "card $1 failed"; }
  all_answered 3 ping -i 0.1 -W 5 -s 1472 10.9.$1.2
  for pool in tx rx; do pool log$1 "$pool pages" 256 "$2"; done
}

# pool LOG NAME WANTED full|short   What is short depends on the others, which take more as soon as there is more.
pool() {
  line=$(grep "^$2 " "$1") || fail "nothing is said of $2"
  echo "$line"
  agreed=$(echo "$line" | sed "s/^$2 *//" | awk '{ print $3 }')
  case $4 in
    full) [ "$agreed" = "$3" ] || fail "$2: there are no more than $agreed, although the limit leaves $3" ;;
    short)
      [ "$agreed" -lt "$3" ] || fail "$2: there are $agreed beyond the limit"
      echo "$line" | grep -q "more.*: raise $limit" || fail "it is not said what to raise" ;;
  esac
}

disk() {  # full|short
  dd if=/dev/urandom of=new bs=1M count=8
  blk-front /local/domain/0/udevice/vbd/51712 write new | tee log
  same "what was written is not what the disk holds" new image
  pool log 'pool pages' 352 "$1"
  blk-front /local/domain/0/udevice/vbd/51712 read got
  same "what was read is not what the disk holds" image got
}

leave() {
  for program in $programs; do kill $program; done
  for program in $programs; do wait $program || { cat log?; fail "a card failed"; }; done
  xenstore-rm /local/domain/0/backend/vif
  xenstore-rm /local/domain/0/udevice/vif
  wait_for "the cards have gone" test ! -e /sys/class/net/vif0.0
  programs=
}

modprobe loop
modprobe xen-blkback
modprobe xen-netback
mount -t debugfs debugfs /sys/kernel/debug 2> /dev/null || true
dd if=/dev/zero of=image bs=1M count=8
losetup /dev/loop0 image
printf '%s\n' 'front virtual-device 51712' 'front device-type disk' 'back mode w' 'back type phy' 'back dev xvda' \
  "back physical-device $(stat -c %t:%T /dev/loop0)" > keys
make_device /local/domain/0/udevice/vbd/51712 /local/domain/0/backend/vbd/0/51712 0 keys
programs=

[ "$(cat $limit)" = 1024 ] || fail "the limit is $(cat $limit) from the start"
card 0 full
card 1 short
# Card 1 takes more pages to receive with when it can, and leaves enough for a part of what a disk wants.
disk short
leave

echo 16384 > $limit
card 0 full
card 1 full
disk full
leave
echo 1024 > $limit
xenstore-rm /local/domain/0/backend/vbd
xenstore-rm /local/domain/0/udevice/vbd
losetup -d /dev/loop0
