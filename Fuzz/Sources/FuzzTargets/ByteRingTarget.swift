import XenPlatform
import XenRing

/// One end of a pair of byte rings, whose pages the other end writes as it likes, and an account of the test's own.
func fuzzByteRing(_ input: inout FuzzInput) {
  let start = input.next(UInt32.self)
  let (interface, data) = (PrivatePages(pageCount: 1), PrivatePages(pageCount: 1 << input.below(3)))
  let index = RingIndex(rawValue: start)
  let references = (0..<data.pageCount).map { GrantReference(rawValue: UInt32($0)) }
  let isFront = input.flag()
  let front = ByteRing(initialising: interface.region(), data: data.region(), references: references, at: index)
  var ring =
    isFront ? front : ByteRing(attaching: interface.region(), data: data.region(), outIndex: index, inIndex: index)
  let byteCount = UInt32(ring.byteCount)
  // Where the other end's producer and consumer are, and our own; and our incoming bytes.
  let (producer, consumer, ownProducer, ownConsumer) = isFront ? (4, 64, 68, 0) : (68, 0, 4, 64)
  let incoming = isFront ? 0 : Int(byteCount)
  var (read, released, checked, written, pushed, seen) = (
    start, start, start, start, start, isFront ? start : start &- byteCount
  )
  // An attaching end takes the ring for full until it has looked.
  while !input.isEmpty {
    switch input.next(UInt8.self) % 8 {
    case 0: interface.bytes.write(input.index(near: input.flag() ? read : released &+ byteCount), at: producer)
    case 1: interface.bytes.write(input.index(near: pushed), at: consumer)
    case 2: interface.bytes.write(input.next(), at: 4 * input.below(1024))
    case 3:
      let word = interface.bytes.word(at: producer)
      let isHonest = word &- read <= byteCount &- (read &- released)
      do {
        let count = try ring.readableCount()
        require(isHonest && count == Int(word &- read), "\(word) passed with \(read) read and \(released) given back")
        checked = word
      } catch { require(!isHonest, "\(word) was refused with \(read) read and \(released) given back") }
    case 4:
      let wanted = input.below(Int(byteCount) + 100)
      var bytes = [UInt8](repeating: 0, count: wanted)
      var span = bytes.mutableSpan
      let got = ring.read(into: &span)
      require(got == min(wanted, Int(checked &- read)), "as many bytes as passed the check")
      let page = data.bytes.slice(from: incoming, count: Int(byteCount)).copied()
      for place in [0, got / 2, got - 1] where place >= 0 && place < got {
        require(
          bytes[place] == page[(Int(read & (byteCount - 1)) + place) % Int(byteCount)], "the bytes in their places")
      }
      read &+= UInt32(got)
    case 5:
      let word = interface.bytes.word(at: consumer)
      let isHonest = pushed &- word <= pushed &- seen
      do {
        let free = try ring.writableCount()
        require(isHonest, "\(word) passed with \(pushed) pushed and \(seen) seen")
        seen = word
        require(free == Int(byteCount &- (written &- seen)), "the room that there is")
      } catch { require(!isHonest, "\(word) was refused with \(pushed) pushed and \(seen) seen") }
    case 6:
      let bytes = [UInt8](repeating: input.next(), count: input.below(Int(byteCount) + 100))
      let put = ring.write(bytes.span)
      require(put == min(bytes.count, Int(byteCount &- (written &- seen))), "as many bytes as there was room for")
      written &+= UInt32(put)
    default:
      let notify = ring.push()
      require(notify == (written != pushed || read != released), "whoever changed something notifies")
      if written != pushed { require(interface.bytes.word(at: ownProducer) == written, "our producer") }
      if read != released { require(interface.bytes.word(at: ownConsumer) == read, "our consumer") }
      (pushed, released) = (written, read)
    }
    require(written &- seen <= byteCount && checked &- read <= byteCount, "nothing beyond the ring")
  }
  // The gate of the interface page.
  if let found = try? ByteRingInterface(reading: interface.region(), maximumOrder: 4) {
    require(found.order <= 4 && found.references.count == 1 << found.order, "no more references than were offered")
  }
}
