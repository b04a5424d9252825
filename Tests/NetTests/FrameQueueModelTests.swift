import NetBack
import TestSupport
import Testing

/// A line of frames beside an array of them, whatever is put and taken in whatever order.
struct FrameQueueModelTests {
  private struct Packet: Equatable {
    let bytes: [UInt8]
    let metadata: NetPacketMetadata
  }

  @Test(arguments: seeds(1...40, of: FrameQueueModelTests.self))
  func whatIsThereIsWhatWasPut(seed: Seed) {
    var random = SeededGenerator(seed)
    // Little memory, so that it is the bytes that are wanting, and the line goes round often.
    let capacity = Int.random(in: 2...40, using: &random)
    var queue = FrameQueue(capacity: capacity, byteCapacity: 4096, maxFrameByteCount: 900)
    var model: [Packet] = []
    var (drops, refused, number) = (UInt64(0), 0, 0)
    for _ in 0..<4000 {
      let count =
        Bool.random(using: &random) ? Int.random(in: 0...100, using: &random) : Int.random(in: 0...950, using: &random)
      let metadata = NetPacketMetadata(checksum: Bool.random(using: &random) ? .blank : .validated)
      number += 1
      let bytes = pattern(count, seed: number)
      switch Int.random(in: 0..<4, using: &random) {
      case 0, 1:
        let hasRoom = queue.hasRoom(for: count)
        let isPut = queue.put(bytes.span, metadata)
        // One that is too short or too long is dropped although there is room.
        #expect(isPut == (hasRoom && (14...900).contains(count)))
        if isPut { model.append(Packet(bytes: bytes, metadata: metadata)) } else { drops += 1 }
        if !hasRoom { refused += 1 }
      case 2:
        let hasRoom = queue.hasRoom
        var isAsked = false
        let isPut = queue.put { place, given in
          isAsked = true
          #expect(place.count == 901)
          place.copy(from: bytes.span.extracting(first: min(count, 901)))
          given = metadata
          return min(count, 901)
        }
        #expect(isAsked == hasRoom && isPut == (hasRoom && count > 0))
        if isPut, (14...900).contains(count) {
          model.append(Packet(bytes: bytes, metadata: metadata))
        } else if isPut {
          drops += 1
        }
      default:
        let taken = Int.random(in: 0...min(3, model.count), using: &random)
        queue.removeFirst(taken)
        model.removeFirst(taken)
      }
      let (there, isEmpty, dropCount) = (queue.count, queue.isEmpty, queue.dropCount)
      #expect(there == model.count && isEmpty == model.isEmpty && dropCount == drops)
      guard let index = model.indices.randomElement(using: &random) else { continue }
      let found = queue[index]
      #expect(Packet(bytes: found.bytes.copied(), metadata: found.metadata) == model[index])
    }
    for index in model.indices {
      let found = queue[index]
      #expect(Packet(bytes: found.bytes.copied(), metadata: found.metadata) == model[index])
    }
    #expect(refused > 100)
  }
}
