# Our block back end under Linux's own front end with persistent grants: its pages stay mapped, no more of them than was said, and
# not for ever.
. /payload/functions

# In pages: what the back end has mapped of its guests'.
mapped() { awk '/xen\/gntdev/ { split($1, ends, "-"); print ends[1], ends[2] }' /proc/$server/maps | pages; }
pages() { sum=0; while read -r start end; do sum=$((sum + (0x$end - 0x$start) / 4096)); done; echo $sum; }
is_mapped() { [ "$(mapped)" = "$1" ]; }

load xen-blkfront
dd if=/dev/urandom of=disk bs=1M count=16
serve_disk disk --queues 1
agreed feature-persistent yes yes on
is "what Linux says of persistent grants" "$(xenstore-read $front/feature-persistent)" 1

read_and_write
before=$(mapped)
[ "$before" -gt 33 ] || fail "only $before pages are mapped"
read_and_write
[ "$(mapped)" -le 1057 ] || fail "$(mapped) pages are mapped"
# Unused for a minute.
tries=12
until is_mapped 1; do
  tries=$((tries - 1))
  [ $tries -gt 0 ] || fail "$(mapped) pages are mapped of an idle disk"
  sleep 10
done
read_and_write
end_disk

# Beside the ring's page there are no more than 64.
serve_disk disk --queues 1 --persistent-pages 64
agreed feature-persistent yes yes on
read_and_write
after=$(mapped)
[ "$after" -gt 1 ] && [ "$after" -le 65 ] || fail "$after pages are mapped and not 2 to 65"
end_disk

serve_disk disk --queues 1 --no-persistent
agreed feature-persistent yes no off
read_and_write
is "the number of pages mapped" "$(mapped)" 1
end_disk
