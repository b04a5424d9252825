# Our block front end on a disk of Linux's own back end: every byte, and back again after leaving and after a kill.
. /payload/functions

modprobe loop
modprobe xen-blkback
dd if=/dev/urandom of=disk bs=1M count=12
dd if=/dev/urandom of=new bs=1M count=12
dd if=/dev/urandom of=newer bs=1M count=12

make_linux_disk
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
remove_linux_disk

make_linux_disk r
rm got
blk-front $front read got
same "what was read is not what the read-only disk holds" disk got
blk-front $front refuse
same "a read-only disk was written" new disk
has_let_go
remove_linux_disk
