# limit: 1800
# needs: fio setpriv
# A guest that attacks xen-blkback through its own disk, with indices, slots, events, keys and connections, and is destroyed in
# the middle of it, while another disk of the same program is under fio verify: that one sees no error, and keeps at least
# 0.7 of its throughput beside the same guest when it merely spins. The program is root, and has none of root's capabilities.
. /payload/functions

cat > script << 'SCRIPT'
modprobe xen-evtchn
modprobe xen-gntdev
modprobe xen-gntalloc
modprobe -r xen-blkfront
hostile-blk-front "/local/domain/$(xenstore-read domid)/udevice/vbd/51712"
# The second time it does not come to its end.
hostile-blk-front "/local/domain/$(xenstore-read domid)/udevice/vbd/51712"
SCRIPT

modprobe xen-blkfront
truncate -s 16M hostile
dd if=/dev/urandom of=own bs=1M count=32
# Not the shell's own, which cannot bound anything.
/payload/bin/setpriv --bounding-set=-all --inh-caps=-all --no-new-privs xen-blkback watch --type ublk --close > blk.log 2>&1 &
server=$!
printf '%s\n' 'front virtual-device 51728' 'front device-type disk' "back params $PWD/own" > keys
make_device /local/domain/0/device/vbd/51728 /local/domain/0/backend/ublk/0/51728 0 keys
wait_for_state /local/domain/0/device/vbd/51728 4
wait_for "the disk is there" test -b /dev/xvdb
is "what xen-blkback may do as root" "$(sed -n 's/^CapEff:[^0-9]*//p' /proc/$server/status)" 0000000000000000
handles=$(ls -l /proc/$server/fd | grep -c /xen/)

# Only the libraries that it needs: the guest holds them in memory.
start_guest hostile script /payload/bin/hostile-blk-front \
  $(find /lib /lib64 -name '*.so*' ! -type d | grep -E '/(ld-linux|lib(c|m|gcc_s|stdc|xenstore|xengnttab|xenevtchn|xentool)[^/]*\.so)')
disk=/local/domain/0/backend/ublk/$domain/51712 front=/local/domain/$domain/udevice/vbd/51712
printf '%s\n' 'front virtual-device 51712' 'front device-type disk' 'front phase wait' "back params $PWD/hostile" > keys
make_device $front $disk $domain keys
phase() { xenstore-write $front/phase "$1"; }

# verify NAME   what fio reaches with each block read again and compared: I/Os a second
verify() {
  fio --name="$1" --filename=/dev/xvdb --rw=randwrite --bs=4k --iodepth=8 --ioengine=libaio --direct=1 --verify=crc32c \
    --verify_backlog=32 --verify_fatal=1 --time_based --runtime=10 --output-format=terse > fio.out 2>&1 ||
    { cat fio.out blk.log; fail "the other disk failed while the guest was in phase $1"; }
  awk -F';' '$1 == 3 { print int($8 + $49) }' fio.out
}

for round in 1 2 3; do
  for name in spin attack; do
    phase $name
    usleep 500000
    figure=$(verify $name)
    echo "ROUND $round $name $figure"
    echo "$name $figure" >> figures
  done
done
phase end
says() { grep -q "$1" "$console"; }
wait_for "the guest has tried everything" says '^not connected: ' || { tail -n 30 blk.log; exit 1; }
if says FAILED; then
  tail -n 30 blk.log
  xenstore-ls $disk
  xenstore-ls $front
  fail "the guest has not done what it should"
fi
awk '{ sum[$1] += $2 } END {
  printf "beside a guest that attacks %d, beside one that spins %d: %.2f\n", sum["attack"], sum["spin"], sum["attack"] / sum["spin"]
  exit sum["attack"] < 0.7 * sum["spin"] }' figures || fail "the other disk has lost too much of its throughput"

# In the middle of its requests.
phase load
wait_for_state $disk 4
verify load > /dev/null &
verifier=$!
usleep 2000000
xl destroy hostile
wait $verifier || { cat fio.out blk.log; fail "the other disk failed when the guest was destroyed"; }
no_zombie
verify end
lacks() { ! xenstore-exists "$1"; }
wait_for "the keys of the guest's disk have gone" lacks "${disk%/*}"
[ "$(ls -l /proc/$server/fd | grep -c /xen/)" = "$handles" ] || fail "xen-blkback keeps handles of the guest's"
if lsevtchn 0 | grep "Domain $domain,"; then fail "event channels to the guest are left"; fi
kill $server
wait $server || { cat blk.log; fail "xen-blkback ended with failure"; }
xenstore-rm /local/domain/0/backend/ublk
xenstore-rm /local/domain/0/device/vbd/51728
wait_for "the other disk has gone" test ! -e /sys/block/xvdb
# What it said of the guest is bounded too.
wc blk.log
[ "$(wc -l < blk.log)" -lt 1000 ] || fail "xen-blkback has said $(wc -l < blk.log) lines"
tail -n 30 blk.log
