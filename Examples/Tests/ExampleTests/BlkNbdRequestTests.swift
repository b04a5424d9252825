import Foundation
import Testing

/// What clients of `blk-nbd` may send, and what they must not; each time others are served as before.
struct BlkNbdRequestTests {
  private static let content = Data((0..<1 << 16).map { UInt8(truncatingIfNeeded: $0 &* 7 ^ $0 >> 8) })
  private static let (einval, enospc, eperm, eio) = (UInt32(22), UInt32(28), UInt32(1), UInt32(5))

  // MARK: Served

  @Test func clientsShareOneDisk() throws {
    let server = try NbdServer(content: Self.content)
    let writer = try RawNbdClient(to: server)
    let reader = try RawNbdClient(to: server)
    let bytes = [UInt8](repeating: 0xAB, count: 4096)
    #expect(try writer.write(8192, bytes) == 0)
    #expect(try reader.read(8192, 4096).bytes == bytes)
    // The reader's flush covers the writer's write.
    #expect(try reader.flush() == 0)
    #expect(
      try server.stop()
        .hasSuffix(
          "served 2 clients: 1 reads of 4096 bytes, 1 writes of 4096 bytes, 0 of them durable, 1 flushes, 0 failed; "
            + "the disk carried out 1 reads, 1 writes, 1 flushes\n"))
  }

  @Test func durableWritesReachTheMedium() throws {
    let server = try NbdServer(content: Self.content)
    let client = try RawNbdClient(to: server)
    for sector in 0..<3 as Range<UInt64> {
      #expect(try client.write(sector * 512, [UInt8](repeating: 1, count: 512), flags: 1) == 0)
    }
    #expect(try client.write(4096, [UInt8](repeating: 2, count: 512)) == 0)
    #expect(
      try server.stop()
        .hasSuffix(
          "4 writes of 2048 bytes, 3 of them durable, 0 flushes, 0 failed; the disk carried out 0 reads, 4 writes, 3 flushes\n"
        ))
  }

  @Test func manyRequestsAtOnceAreAnsweredByTheirCookies() throws {
    let server = try NbdServer(content: Self.content)
    let client = try RawNbdClient(to: server)
    for number in 0..<100 as Range<UInt64> {
      try client.sendRead(cookie: number, offset: number * 512, length: 512)
    }
    var seen: Set<UInt64> = []
    for _ in 0..<100 {
      let reply = try client.reply(payload: 512)
      seen.insert(reply.cookie)
      let start = Int(reply.cookie) * 512
      #expect(reply.bytes == Array(Self.content[start..<start + 512]))
    }
    #expect(seen.count == 100)
  }

  /// As one that did not ask for the block sizes may (proto.md, "Size constraints").
  @Test(arguments: [(0, 1), (511, 2), (513, 1022), (1000, 10_000), (65_535, 1)])
  func everyByteIsAddressedByAClientThatDoesNotKnowTheBlocks(offset: Int, count: Int) throws {
    let server = try NbdServer(content: Self.content)
    let client = try RawNbdClient(to: server, asksForBlocks: false)
    #expect(try client.read(UInt64(offset), UInt32(count)).bytes == Array(Self.content[offset..<offset + count]))
    #expect(try client.write(UInt64(offset), [UInt8](repeating: 0x5A, count: count)) == 0)
    var expected = Self.content
    expected.replaceSubrange(offset..<offset + count, with: [UInt8](repeating: 0x5A, count: count))
    #expect(try server.contents() == expected)
  }

  @Test func neighboursInOneSectorAreNotTorn() throws {
    let server = try NbdServer(content: Self.content)
    let clients = try (0..<4).map { _ in try RawNbdClient(to: server, asksForBlocks: false) }
    // Each client its own bytes of the same three sectors, all at once.
    for place in 0..<64 as Range<UInt64> {
      for (number, client) in clients.enumerated() {
        try client.sendWrite(
          cookie: place, offset: 300 + place * 16 + UInt64(number) * 4, [UInt8](repeating: UInt8(number + 1), count: 4))
      }
    }
    for client in clients { for _ in 0..<64 { #expect(try client.reply().error == 0) } }
    var expected = Self.content
    for at in 0..<1024 { expected[300 + at] = UInt8(at / 4 % 4 + 1) }
    #expect(try server.contents() == expected)
  }

  // MARK: Refused

  @Test(arguments: [(UInt64(1), 512), (0, 511), (256, 512), (65_024, 100)])
  func unalignedIsRefusedToAClientThatKnowsTheBlocks(offset: UInt64, count: Int) throws {
    let server = try NbdServer(content: Self.content)
    let client = try RawNbdClient(to: server)
    #expect(try client.read(offset, UInt32(count)).error == Self.einval)
    #expect(try client.write(offset, [UInt8](repeating: 0, count: count)) == Self.einval)
    #expect(try client.read(0, 512).bytes == Array(Self.content.prefix(512)))
    #expect(try server.contents() == Self.content)
  }

  @Test(arguments: [UInt64(1 << 16 - 512), 1 << 16, 1 << 63, 0xFFFF_FFFF_FFFF_FE00])
  func beyondTheEndIsRefused(offset: UInt64) throws {
    let server = try NbdServer(content: Self.content)
    let client = try RawNbdClient(to: server)
    #expect(try client.read(offset, 1024).error == Self.einval)
    #expect(try client.write(offset, [UInt8](repeating: 0, count: 1024)) == Self.enospc)
    #expect(try client.read(0, 512).bytes == Array(Self.content.prefix(512)))
    #expect(try server.contents() == Self.content)
  }

  @Test func writeToAReadOnlyExportIsNotPermitted() throws {
    let server = try NbdServer(content: Self.content, arguments: "--read-only")
    let client = try RawNbdClient(to: server)
    #expect(try client.write(0, [UInt8](repeating: 0, count: 512), flags: 1) == Self.eperm)
    #expect(try client.flush() == 0)
    #expect(try client.read(0, 512).bytes == Array(Self.content.prefix(512)))
    #expect(try server.contents() == Self.content)
  }

  /// TRIM, WRITE_ZEROES, BLOCK_STATUS, and one that nobody has.
  @Test(arguments: [UInt16(4), 6, 7, 99]) func unknownCommandIsInvalid(command: UInt16) throws {
    let server = try NbdServer(content: Self.content)
    let client = try RawNbdClient(to: server)
    try client.send(RawNbdClient.header(command, cookie: 9, offset: 0, length: 512))
    #expect(try client.reply() == RawNbdClient.Reply(cookie: 9, error: Self.einval))
    #expect(try client.read(0, 512).bytes == Array(Self.content.prefix(512)))
  }

  @Test func unknownOptionIsUnsupportedAndTheClientMayGoOn() throws {
    let server = try NbdServer(content: Self.content)
    let client = try RawNbdClient(server.socket)
    _ = try client.receive(18)
    try client.send([0, 0, 0, 3] + Array("IHAVEOPT".utf8) + [0, 0, 0, 99, 0, 0, 0, 2, 1, 2])
    let header = try client.receive(20)
    #expect(header[8..<16] == [0, 0, 0, 99, 0x80, 0, 0, 1])
    _ = try client.receive(Int(header[19]))
    // NBD_OPT_EXPORT_NAME.
    try client.send(Array("IHAVEOPT".utf8) + [0, 0, 0, 1, 0, 0, 0, 0])
    #expect(try client.receive(10) == [0, 0, 0, 0, 0, 1, 0, 0, 0x01, 0x0D])
    #expect(try client.read(0, 512).bytes == Array(Self.content.prefix(512)))
  }

  // MARK: Broken and hostile clients

  /// Expects that a client goes on which was there before, and that a new one comes in.
  private func expectOthersServed(_ server: NbdServer, _ old: RawNbdClient) throws {
    for client in [old, try RawNbdClient(to: server)] {
      #expect(try client.read(512, 512).bytes == Array(Self.content[512..<1024]))
    }
  }

  @Test func garbageInTheHandshakeEndsThatClientAlone() throws {
    let server = try NbdServer(content: Self.content)
    let old = try RawNbdClient(to: server)
    let client = try RawNbdClient(server.socket)
    _ = try client.receive(18)
    try client.send(Array("GET / HTTP/1.1\r\n\r\n".utf8))
    #expect(client.isClosed())
    try expectOthersServed(server, old)
    try server.stop(
      complaints:
        "blk-nbd: client 2 is disconnected: it answered the greeting with flags 0x47455420, which nobody knows\n")
  }

  @Test func garbageInPlaceOfARequestEndsThatClientAlone() throws {
    let server = try NbdServer(content: Self.content)
    let old = try RawNbdClient(to: server)
    let client = try RawNbdClient(to: server)
    try client.send([UInt8](repeating: 0xFF, count: 4096))
    #expect(client.isClosed())
    try expectOthersServed(server, old)
    try server.stop(
      complaints: "blk-nbd: client 2 is disconnected: it sent 0xffffffff where an NBD request begins\n")
  }

  @Test func halfSentWriteChangesNothing() throws {
    let server = try NbdServer(content: Self.content)
    let old = try RawNbdClient(to: server)
    do {
      let client = try RawNbdClient(to: server)
      try client.send(
        RawNbdClient.header(1, cookie: 1, offset: 0, length: 8192) + [UInt8](repeating: 0xEE, count: 8191))
    }
    try expectOthersServed(server, old)
    // It has seen all of what was sent by then.
    try server.stop()
    #expect(try server.contents() == Self.content)
  }

  @Test func halfSentHeaderHarmsNobody() throws {
    let server = try NbdServer(content: Self.content)
    let old = try RawNbdClient(to: server)
    do { try RawNbdClient(to: server).send([0x25, 0x60, 0x95]) }
    try expectOthersServed(server, old)
    try server.stop()
  }

  @Test func clientThatGoesAwayWithoutItsAnswersHarmsNobody() throws {
    let server = try NbdServer(content: Self.content)
    let old = try RawNbdClient(to: server)
    do {
      let client = try RawNbdClient(to: server)
      for number in 0..<64 as Range<UInt64> { try client.sendRead(cookie: number, offset: 0, length: 1 << 16) }
    }
    try expectOthersServed(server, old)
    try server.stop()
  }

  /// Four gigabytes are promised; what comes of them is skipped, and the request refused when all of it has come.
  @Test func oversizedWriteTakesNoMemory() throws {
    let server = try NbdServer(content: Self.content)
    let old = try RawNbdClient(to: server)
    let client = try RawNbdClient(to: server)
    let before = try server.peakMemory()
    try client.send(RawNbdClient.header(1, cookie: 1, offset: 0, length: .max))
    let part = [UInt8](repeating: 0xEE, count: 1 << 20)
    for _ in 0..<64 { try client.send(part) }
    try expectOthersServed(server, old)
    #expect(try server.peakMemory() - before < 16 << 20)
    #expect(try server.contents() == Self.content)
  }

  @Test func oversizedReadIsInvalid() throws {
    let server = try NbdServer(content: Self.content)
    let client = try RawNbdClient(to: server)
    #expect(try client.read(0, .max).error == Self.einval)
    #expect(try client.read(0, 512).bytes == Array(Self.content.prefix(512)))
  }

  /// Two gigabytes of answers, of which the client fetches none.
  @Test func answersThatNobodyFetchesTakeBoundedMemory() throws {
    let server = try NbdServer(byteCount: 32 << 20)
    let old = try RawNbdClient(to: server)
    let client = try RawNbdClient(to: server)
    let before = try server.peakMemory()
    for number in 0..<64 as Range<UInt64> { try client.sendRead(cookie: number, offset: 0, length: 32 << 20) }
    for _ in 0..<50 { #expect(try old.read(0, 1 << 16).error == 0) }
    #expect(try server.peakMemory() - before < 192 << 20)
  }

  @Test func clientBeyondTheLimitIsTurnedAway() throws {
    let server = try NbdServer(content: Self.content)
    var clients = try (0..<32).map { _ in try RawNbdClient(to: server) }
    #expect(try RawNbdClient(server.socket).isClosed())
    #expect(try clients[31].read(0, 512).error == 0)
    clients.removeAll()
    try server.stop(
      complaints: "blk-nbd: a client is turned away: 32 are connected already\n")
  }

  // MARK: The disk, and the end

  @Test func imageThatBecameShorterFailsThoseRequestsAlone() throws {
    let server = try NbdServer(content: Self.content)
    let client = try RawNbdClient(to: server)
    try NbdServer.resize(server.image, to: 4096)
    #expect(try client.read(8192, 512).error == Self.eio)
    #expect(try client.read(512, 512).bytes == Array(Self.content[512..<1024]))
    try server.stop(
      complaints: "blk-nbd: a read of 512 bytes at 8192 failed: the backend answered with an error\n")
  }

  @Test func whatWasAnsweredBeforeTheEndIsInTheImage() throws {
    let server = try NbdServer(byteCount: 8 << 20)
    let client = try RawNbdClient(to: server)
    for number in 0..<32 as Range<UInt64> {
      try client.sendWrite(cookie: number, offset: number << 18, [UInt8](repeating: UInt8(number + 1), count: 1 << 18))
    }
    let first = try client.reply()
    #expect(first.error == 0)
    var answered = [first.cookie]
    server.send(signal: SIGTERM)
    while let reply = try client.replyIfAny() {
      #expect(reply.error == 0)
      answered.append(reply.cookie)
    }
    #expect(try server.end().exitCode == 0)
    let contents = try server.contents()
    for number in answered {
      #expect(contents[Int(number) << 18..<(Int(number) + 1) << 18].allSatisfy { $0 == UInt8(number + 1) })
    }
  }

  @Test func idleClientDoesNotHoldUpTheEnd() throws {
    let server = try NbdServer(content: Self.content)
    let client = try RawNbdClient(to: server)
    try client.send([0x25, 0x60])
    try server.stop()
    #expect(client.isClosed())
  }

  /// Most of it has not even been taken by then, because the client has fetched no answer.
  @Test func whatWasSentBeforeTheClientEndedSendingIsAnswered() throws {
    let server = try NbdServer(content: Self.content)
    let client = try RawNbdClient(to: server)
    for number in 0..<120 as Range<UInt64> { try client.sendRead(cookie: number, offset: 0, length: 1 << 16) }
    client.endSending()
    var seen: Set<UInt64> = []
    while let reply = try client.replyIfAny(payload: 1 << 16) { seen.insert(reply.cookie) }
    #expect(seen.count == 120)
  }

  /// It has 32 MiB to fetch, and fetches 16 bytes; its connection is given up in the end.
  @Test func clientThatFetchesNothingDoesNotHoldUpTheEndForEver() throws {
    let server = try NbdServer(byteCount: 32 << 20)
    let client = try RawNbdClient(to: server)
    try client.sendRead(cookie: 1, offset: 0, length: 32 << 20)
    _ = try client.receive(16)
    try server.stop()
  }

  @Test func disconnectIsObeyedWhenAllIsAnswered() throws {
    let server = try NbdServer(content: Self.content)
    let client = try RawNbdClient(to: server)
    for number in 0..<16 as Range<UInt64> {
      try client.sendWrite(cookie: number, offset: number * 4096, [UInt8](repeating: 3, count: 4096))
    }
    try client.send(RawNbdClient.header(2, cookie: 0, offset: 0, length: 0))
    var seen: Set<UInt64> = []
    for _ in 0..<16 { seen.insert(try client.reply().cookie) }
    #expect(seen.count == 16 && client.isClosed())
    #expect(try server.contents().allSatisfy { $0 == 3 })
  }
}
