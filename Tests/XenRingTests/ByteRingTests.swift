import TestSupport
import Testing
import XenPlatform
import XenRing

/// R13: streams of bytes between two honest ends.
struct ByteRingTests {
  @Test func sizeIsHalfOfThePages() {
    #expect(ByteRingLayout.byteCount(order: 0) == 2048)
    #expect(ByteRingLayout.byteCount(order: 1) == 4096)
    #expect(ByteRingLayout.byteCount(order: 9) == 1 << 20)
    let pair = BytePair(order: 2)
    let byteCounts = [pair.front.byteCount, pair.back.byteCount]
    #expect(byteCounts == [8192, 8192])
  }

  @Test func freshPagesAreZeroButForOrderAndReferences() throws {
    let interface = PrivatePages(pageCount: 1)
    let data = PrivatePages(pageCount: 4)
    for pages in [interface, data] {
      pages.bytes.copy(from: [UInt8](repeating: 0xAA, count: pages.pageCount * xenPageSize).span)
    }
    let references = BytePair.references(order: 2)
    let ring = ByteRing(initialising: interface.region(), data: data.region(), references: references)
    #expect(data.bytes.copied().allSatisfy { $0 == 0 })
    var expected = [UInt8](repeating: 0, count: 128) + [2, 0, 0, 0]
    for reference in references {
      for shift in [0, 8, 16, 24] { expected.append(UInt8(reference.rawValue >> shift & 0xFF)) }
    }
    #expect(interface.bytes.copied() == expected + [UInt8](repeating: 0, count: xenPageSize - expected.count))
    let byteCount = ring.byteCount
    #expect(byteCount == 8192)
    let seen = try ByteRingInterface(reading: interface.region())
    #expect(seen.order == 2)
    #expect(seen.references == references)
  }

  @Test(arguments: startIndices, [0, 1, 3]) func bytesCrossBothWays(start: UInt32, order: Int) throws {
    var pair = BytePair(order: order, at: start)
    var (sent, received): (Int, [UInt8]) = (0, [])
    // Lengths that share no factor with the ring's size: every place is once a stream's wrap.
    let message = pattern(769, seed: Int(start))
    for _ in 0..<64 {
      let written = try pair.front.write(bytes: Array(message.dropFirst(sent % 769)))
      sent += written
      let wrote = pair.front.push()
      #expect(wrote == (written > 0))
      let chunk = try pair.back.readAll()
      let back = try pair.back.write(bytes: chunk)
      #expect(back == chunk.count)
      let answered = pair.back.push()
      #expect(answered == !chunk.isEmpty)
      received += try pair.front.readAll()
      let took = pair.front.push()
      #expect(took == !chunk.isEmpty)
    }
    #expect(received.count == sent)
    #expect(sent > 2 * pair.front.byteCount)
    let expected = (0..<sent).map { message[$0 % 769] }
    #expect(received == expected)
  }

  @Test(arguments: startIndices) func inIsTheFirstHalfAndOutTheSecond(start: UInt32) throws {
    var pair = BytePair(order: 1, at: start)
    let word = { (bytes: [UInt8], at: Int) in bytes[(Int(start) + at) % 4096] }
    _ = try pair.front.write(bytes: [1, 2, 3])
    _ = try pair.back.write(bytes: [4, 5])
    let bytes = pair.data.bytes.copied()
    #expect((0..<3).map { word(Array(bytes[4096...]), $0) } == [1, 2, 3])
    #expect((0..<2).map { word(Array(bytes[..<4096]), $0) } == [4, 5])
  }

  @Test(arguments: startIndices) func nothingIsSeenBeforeItIsPushed(start: UInt32) throws {
    var pair = BytePair(at: start)
    let written = try pair.front.write(bytes: [1, 2, 3])
    #expect(written == 3)
    let before = try pair.back.readableCount()
    #expect(before == 0)
    let shown = pair.front.push()
    #expect(shown)
    let produced = pair[.outProducer]
    #expect(produced == start &+ 3)
    // Looked for only now.
    let unlooked = pair.back.read(upTo: 3)
    #expect(unlooked.isEmpty)
    let after = try pair.back.readAll()
    #expect(after == [1, 2, 3])
    let stillThere = pair[.outConsumer]
    #expect(stillThere == start)
    let gaveBack = pair.back.push()
    #expect(gaveBack)
    let consumed = pair[.outConsumer]
    #expect(consumed == start &+ 3)
    let again = pair.back.push() || pair.front.push()
    #expect(!again)
  }

  @Test(arguments: startIndices) func fullRingTakesNoMoreUntilBytesAreGivenBack(start: UInt32) throws {
    var pair = BytePair(at: start)
    let bytes = pattern(3000, seed: 5)
    let first = try pair.front.write(bytes: bytes)
    #expect(first == 2048)
    _ = pair.front.push()
    let full = try pair.front.write(bytes: [9])
    #expect(full == 0)
    let waiting = try pair.back.readableCount()
    #expect(waiting == 2048)
    let read = pair.back.read(upTo: 100)
    #expect(read == Array(bytes.prefix(100)))
    let stillFull = try pair.front.writableCount()
    #expect(stillFull == 0)
    _ = pair.back.push()
    let free = try pair.front.writableCount()
    #expect(free == 100)
  }

  @Test(arguments: startIndices) func valuesAreReadAndWrittenWholeOrNotAtAll(start: UInt32) throws {
    var pair = BytePair(at: start)
    _ = try pair.front.write(bytes: [1, 0, 0])
    _ = pair.front.push()
    _ = try pair.back.readableCount()
    let early = pair.back.read(as: UInt32.self)
    #expect(early == nil)
    _ = try pair.front.write(bytes: [2])
    _ = pair.front.push()
    _ = try pair.back.readableCount()
    let whole = pair.back.read(as: UInt32.self)
    #expect(whole == 0x0200_0001)
    _ = pair.back.push()
    _ = try pair.front.write(bytes: [UInt8](repeating: 0, count: 2041))
    let fits = pair.front.write(0x55 as UInt32)
    let doesNotFit = pair.front.write(0x55 as UInt32)
    #expect(fits && !doesNotFit)
    let left = pair.front.write([7, 7, 7, 7].span)
    #expect(left == 3)
  }

  @Test func payloadGoesBetweenTheRingAndSharedMemory() throws {
    var pair = BytePair(at: .max - 7)
    let pages = PrivatePages(pageCount: 1)
    pages.bytes.copy(from: pattern(100, seed: 3).span)
    _ = try pair.front.writableCount()
    let written = pair.front.write(pages.bytes.slice(from: 0, count: 100))
    _ = pair.front.push()
    _ = try pair.back.readableCount()
    let read = pair.back.read(into: pages.bytes.slice(from: 1000, count: 3000))
    #expect([written, read] == [100, 100])
    #expect(pages.bytes.slice(from: 1000, count: 101).copied() == pattern(100, seed: 3) + [0])
    let none = pair.front.write(SharedBytes.none)
    #expect(none == 0)
  }

  @Test(arguments: startIndices) func anotherBackEndGoesOnWhereTheFirstStopped(start: UInt32) throws {
    var pair = BytePair(at: start)
    _ = try pair.front.write(bytes: [1, 2, 3, 4])
    _ = pair.front.push()
    _ = try pair.back.readableCount()
    _ = pair.back.read(upTo: 2)
    _ = try pair.back.write(bytes: [8])
    _ = pair.back.push()
    pair.back = ByteRing(
      attaching: pair.interface.region(), data: pair.data.region(), outIndex: RingIndex(rawValue: start &+ 2),
      inIndex: RingIndex(rawValue: start &+ 1))
    let rest = try pair.back.readAll()
    #expect(rest == [3, 4])
    _ = try pair.back.write(bytes: [9])
    _ = pair.back.push()
    let answer = try pair.front.readAll()
    #expect(answer == [8, 9])
  }

  @Test func errorWordsLieWherePVCallsHasThem() {
    let pair = BytePair()
    pair.back.inError = -107
    pair.back.outError = -32
    let words = [pair[.inError], pair[.outError]]
    #expect(words == [UInt32(bitPattern: -107), UInt32(bitPattern: -32)])
    let errors = [pair.front.inError, pair.front.outError]
    #expect(errors == [-107, -32])
    pair[.inError] = .max / 2 + 1
    let any = pair.front.inError
    #expect(any == .min)
  }

  @Test func dumpIsOneLine() throws {
    var pair = BytePair(at: 10)
    _ = try pair.front.write(bytes: [1, 2])
    let dump = pair.front.dump()
    #expect(
      dump
        == "byte rings of 2048: written 12 pushed 10 read 10 given back 10; shared in_prod 10 in_cons 10 out_prod 10 "
        + "out_cons 10")
  }

  @Test func pagesThatAreNoPowerOfTwoTrap() async {
    await #expect(processExitsWith: .failure) {
      _ = ByteRing(attaching: PrivatePages(pageCount: 1).region(), data: PrivatePages(pageCount: 3).region())
    }
    await #expect(processExitsWith: .failure) {
      _ = ByteRing(
        initialising: PrivatePages(pageCount: 1).region(), data: PrivatePages(pageCount: 4).region(),
        references: BytePair.references(order: 1))
    }
    await #expect(processExitsWith: .failure) {
      _ = ByteRing(attaching: PrivatePages(pageCount: 1).region(), data: PrivatePages(pageCount: 1024).region())
    }
    await #expect(processExitsWith: .success) {
      _ = ByteRing(attaching: PrivatePages(pageCount: 1).region(), data: PrivatePages(pageCount: 512).region())
    }
  }
}
