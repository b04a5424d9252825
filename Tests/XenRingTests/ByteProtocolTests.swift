import TestSupport
import Testing
import XenPlatform
import XenRing

/// What begins each 9pfs message in the rings (io/9pfs.h, `struct xen_9pfs_header`): seven bytes, which no Swift struct is.
struct NinePHeader: Equatable {
  static let byteCount = 7
  var size: UInt32, id: UInt8, tag: UInt16
}

/// A backend of 9pfs's shape: whole messages in, an answer to each out. It knows no file, and says each message's length.
struct NinePServer: ~Copyable {
  enum Fault: Error, Equatable {
    case messageTooShort(UInt32)
    case messageTooLong(UInt32)
  }

  var ring: ByteRing
  /// What is known of a message that is not whole yet. Read once: the other end can change it no more.
  var header: NinePHeader?

  /// Answers all messages that are there whole and have room for their answer; true when the other end must be notified.
  mutating func serve() throws -> Bool {
    var readable = try ring.readableCount()
    while true {
      if header == nil, readable >= NinePHeader.byteCount {
        header = NinePHeader(
          size: ring.read(as: UInt32.self)!, id: ring.read(as: UInt8.self)!, tag: ring.read(as: UInt16.self)!)
        readable -= NinePHeader.byteCount
      }
      guard let header else { break }
      guard header.size >= NinePHeader.byteCount else { throw Fault.messageTooShort(header.size) }
      guard header.size <= ring.byteCount else { throw Fault.messageTooLong(header.size) }
      let bodyCount = Int(header.size) - NinePHeader.byteCount
      guard readable >= bodyCount, try ring.writableCount() >= NinePHeader.byteCount + 4 else { break }
      var body = [UInt8](repeating: 0, count: bodyCount)
      var span = body.mutableSpan
      readable -= ring.read(into: &span)
      let sum = body.reduce(0 as UInt32) { $0 &+ UInt32($1) }
      _ = ring.write(UInt32(NinePHeader.byteCount + 4))
      _ = ring.write(header.id &+ 1)
      _ = ring.write(header.tag)
      _ = ring.write(sum)
      self.header = nil
    }
    return ring.push()
  }
}

/// R13 as protocols use it.
struct ByteProtocolTests {
  func request(_ tag: UInt16, body: [UInt8]) -> [UInt8] {
    let size = UInt32(NinePHeader.byteCount + body.count)
    return (0..<4).map { UInt8(truncatingIfNeeded: size >> (8 * $0)) } + [100, UInt8(tag & 0xFF), UInt8(tag >> 8)]
      + body
  }

  @Test(arguments: seeds(1...8, of: ByteProtocolTests.self)) func messagesInPiecesAreAnsweredWhole(seed: Seed) throws {
    var generator = SeededGenerator(seed)
    let interface = PrivatePages(pageCount: 1)
    let data = PrivatePages(pageCount: 2)
    let start = RingIndex(rawValue: UInt32.random(in: .min ... .max, using: &generator))
    var front = ByteRing(
      initialising: interface.region(), data: data.region(), references: BytePair.references(order: 1), at: start)
    let seen = try ByteRingInterface(reading: interface.region(), maximumOrder: 4)
    #expect(seen.references.count == 2)
    var server = NinePServer(
      ring: ByteRing(attaching: interface.region(), data: data.region(), outIndex: start, inIndex: start))

    var (sums, unsent, answers): ([UInt32], [UInt8], [UInt8]) = ([], [], [])
    for tag in 0..<200 as Range<UInt16> {
      let body = pattern(Int.random(in: 0...1500, using: &generator), seed: Int(tag))
      sums.append(body.reduce(0) { $0 &+ UInt32($1) })
      unsent += request(tag, body: body)
    }
    var turns = 0
    while answers.count < 200 * 11, turns < 100_000 {
      turns += 1
      let piece = Array(unsent.prefix(Int.random(in: 0...900, using: &generator)))
      unsent.removeFirst(try front.write(bytes: piece))
      _ = front.push()
      _ = try server.serve()
      // It looks for answers now and then: the ring that they come in fills up.
      if unsent.isEmpty || Int.random(in: 0..<40, using: &generator) == 0 {
        answers += try front.readAll()
        _ = front.push()
      }
    }
    var expected: [UInt8] = []
    for (tag, sum) in sums.enumerated() {
      expected += [11, 0, 0, 0, 101, UInt8(tag & 0xFF), UInt8(tag >> 8)]
      expected += (0..<4).map { UInt8(truncatingIfNeeded: sum >> (8 * $0)) }
    }
    #expect(answers == expected)
  }

  @Test(arguments: [0, 6, 2049, .max] as [UInt32]) func messageThatCannotBeIsRefused(size: UInt32) throws {
    var pair = BytePair()
    _ = try pair.front.write(bytes: (0..<4).map { UInt8(truncatingIfNeeded: size >> (8 * $0)) } + [100, 1, 0])
    _ = pair.front.push()
    var server = NinePServer(ring: ByteRing(attaching: pair.interface.region(), data: pair.data.region()))
    var fault: (any Error)?
    do { _ = try server.serve() } catch { fault = error }
    #expect(fault as? NinePServer.Fault == (size < 7 ? .messageTooShort(size) : .messageTooLong(size)))
  }

  /// PV Calls' shape: a socket's bytes both ways, ended by an error word of the back end's.
  @Test func streamEndsWithTheSocketsError() throws {
    var pair = BytePair(order: 1, at: .max - 100)
    let sent = pattern(10_000, seed: 1)
    var (done, echoed): (Int, [UInt8]) = (0, [])
    while echoed.count < sent.count {
      done += try pair.front.write(bytes: Array(sent[done...]))
      if pair.front.push() {
        let bytes = try pair.back.readAll()
        let written = try pair.back.write(bytes: bytes)
        #expect(written == bytes.count)
      }
      if echoed.count + 4096 >= sent.count { pair.back.inError = -107 }
      guard pair.back.push() else { break }
      echoed += try pair.front.readAll()
    }
    #expect(echoed == sent)
    let errors = [pair.front.inError, pair.front.outError]
    #expect(errors == [-107, 0])
  }
}
