// Named for the advisories that they are about.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

import BlkBack
import TestSupport
import Testing
import XenLoopback
import XenPlatform

/// What a guest can do to its disk's backend through the ring and its pages.
struct BlkBackRingSecurityTests {
  // MARK: S1

  @Test(arguments: [33, 0x8000_0000, 0xFFFF_FFFF] as [UInt32])
  func XSA39_requestProducerOutOfRangeClosesTheDiskAlone(producer: UInt32) throws {
    let stage = try BlkBackStage()
    try stage.frontend.connect()
    stage.frontend.ring.requestProducer = producer
    stage.peer.notify()
    let complaint = try stage.expectClosed()
    #expect(
      complaint
        == "the front end moved its request producer to \(producer), but requests are consumed up to 0 and 32 slots are free"
    )
    try stage.check()
  }

  /// The plain overflow macro accepts it, and takes the ring's stale slots for requests.
  @Test func XSA86_requestProducerMovedBackwardsInFlightClosesTheDisk() throws {
    let store = WaitingStore()
    let stage = try BlkBackStage(store: store)
    try stage.frontend.connect()
    for id in 0..<4 as Range<UInt64> {
      stage.frontend.put(stage.frontend.request(BlkIf.Operation.read, pages: [Int(id)], id: id))
    }
    #expect(stage.run { store.count == 4 })
    stage.frontend.ring.requestProducer = 2
    stage.peer.notify()
    let complaint = try stage.expectClosed()
    #expect(complaint.contains("moved its request producer to 2"))
    #expect(store.count == 4, "nothing was taken twice")
    store.open()
    try stage.check()
  }

  /// The other three words are the backend's to write, or only say when to notify.
  @Test(arguments: [4, 8, 12], [0, 7, 0x7FFF_FFFF, 0xFFFF_FFFF] as [UInt32])
  func XSA39_theOtherIndicesMayBeAnything(offset: Int, word: UInt32) throws {
    let stage = try BlkBackStage()
    try stage.frontend.connect()
    stage.frontend.ring.bytes.scribble(word, at: offset)
    stage.frontend.put(stage.frontend.request(BlkIf.Operation.read, pages: [0], id: 5))
    stage.run(turns: 50)
    // The backend's own count of responses is what it writes, whatever stood there.
    #expect(stage.frontend.ring.responseProducer == 1)
    #expect(stage.frontend.ring.entry(0, as: BlkIfResponse.self).id == 5)
    try stage.check()
  }

  // MARK: S3

  /// While the store has the request every slot of the ring and the page of descriptors are rewritten.
  @Test(arguments: [false, true], [false, true])
  func XSA155_slotRewrittenDuringProcessingChangesNothing(isIndirect: Bool, isPersistent: Bool) throws {
    let attacked = AttackedStore()
    let stage = try BlkBackStage(store: attacked)
    let frontend = stage.frontend!
    try frontend.connect(isPersistent: isPersistent)
    let payload = pattern(4 * 4096, seed: 3)
    frontend.data.slice(from: 0, count: payload.count).copy(from: payload.span)
    let (ring, data) = (frontend.ring!, frontend.data!)
    attacked.whenSubmitted {
      ring.bytes.slice(from: 64, count: 4096 - 64).copy(from: [UInt8](repeating: 0xFF, count: 4096 - 64).span)
      data.slice(from: 16 * 4096, count: 4096).copy(from: [UInt8](repeating: 0xFF, count: 4096).span)
    }
    if isIndirect {
      frontend.put(frontend.indirect(BlkIf.Operation.write, sector: 8, pages: [0, 1, 2, 3], in: 16, id: 77))
    } else {
      frontend.put(frontend.request(BlkIf.Operation.write, sector: 8, pages: [0, 1, 2, 3], id: 77))
    }
    let response = try frontend.responses(1)[0]
    #expect(response.id == 77 && response.operation == BlkIf.Operation.write && response.status == 0)
    #expect(attacked.kinds == [.write] && attacked.sectors == [8])
    attacked.whenSubmitted(nil)
    frontend.put(frontend.request(BlkIf.Operation.read, sector: 8, pages: [8, 9, 10, 11], id: 78))
    #expect(try frontend.statuses(1) == [78: 0])
    #expect(frontend.data.slice(from: 8 * 4096, count: payload.count).copied() == payload)
    try stage.check()
  }

  /// What is to be written is copied once: what the store writes is one state of the page, and stays it, whatever the guest
  /// does to the page afterwards. (Pages that stay mapped are the guest's, and a store only moves them.)
  @Test func XSA155_payloadRewrittenDuringProcessingIsWrittenAsItWas() throws {
    let attacked = AttackedStore()
    let stage = try BlkBackStage(store: attacked)
    let frontend = stage.frontend!
    try frontend.connect()
    let payload = pattern(4096, seed: 4)
    frontend.page(0).copy(from: payload.span)
    let page = frontend.page(0)
    attacked.whenSubmitted { page.zero() }
    frontend.put(frontend.request(BlkIf.Operation.write, pages: [0], id: 1))
    #expect(try frontend.statuses(1) == [1: 0])
    attacked.whenSubmitted(nil)
    frontend.put(frontend.request(BlkIf.Operation.read, pages: [1], id: 2))
    #expect(try frontend.statuses(1) == [2: 0])
    #expect(frontend.page(1).copied() == payload)
    try stage.check()
  }

  // MARK: S4

  @Test func XSA216_everyByteOfAResponseIsWritten() throws {
    let stage = try BlkBackStage()
    let frontend = stage.frontend!
    try frontend.connect()
    for id in 0..<40 as Range<UInt64> {
      let slot = frontend.ring.slot(UInt32(id))
      slot.copy(from: [UInt8](repeating: 0xEE, count: slot.count).span)
      // What passes, what does not, and what nobody knows.
      let operation = [BlkIf.Operation.read, BlkIf.Operation.write, 200, BlkIf.Operation.indirect][Int(id % 4)]
      frontend.put(frontend.request(operation, pages: [0], id: id))
      let response = try frontend.responses(1)[0]
      #expect(response.id == id)
      var expected = [UInt8](repeating: 0, count: slot.count)
      expected[0] = UInt8(id)
      expected[8] = response.operation
      (expected[10], expected[11]) = (UInt8(truncatingIfNeeded: response.status), response.status < 0 ? 0xFF : 0)
      #expect(slot.copied() == expected)
    }
    try stage.check()
  }

  /// Buffers go from guest to guest: a read that fails brings nothing that another one's left there.
  @Test(arguments: [false, true]) func XSA216_failedReadBringsNoByteOfAnother(isPersistent: Bool) throws {
    var options = BlkBackOptions()
    options.bufferPageCount = 16
    options.maxIndirectSegmentCount = 0
    let stage = try BlkBackStage(options: options, store: FailingStore(from: 32))
    let frontend = stage.frontend!
    try frontend.connect(isPersistent: isPersistent)
    for round in 0..<8 {
      // The secret is in every buffer once.
      let secret = [UInt8](repeating: 0x5E, count: 4096)
      for page in 0..<11 { frontend.page(page).copy(from: secret.span) }
      frontend.put(frontend.request(BlkIf.Operation.write, pages: Array(0..<3), id: 1))
      #expect(try frontend.statuses(1) == [1: 0])
      let empty = [UInt8](repeating: 0x11, count: 4096)
      for page in 16..<32 { frontend.page(page).copy(from: empty.span) }
      frontend.put(frontend.request(BlkIf.Operation.read, sector: 32 + UInt64(round), pages: [16, 17, 18], id: 2))
      #expect(try frontend.statuses(1) == [2: BlkIf.Status.error])
      for page in 16..<32 { #expect(frontend.page(page).copied() == empty) }
    }
    try stage.check()
  }

  // MARK: S13

  /// A read sets the bytes of its sectors and no other byte of any page that the guest has granted.
  @Test(arguments: [false, true]) func XSA403_readTouchesItsSectorsAlone(isPersistent: Bool) throws {
    let stage = try BlkBackStage()
    let frontend = stage.frontend!
    try frontend.connect(isPersistent: isPersistent)
    frontend.data.copy(from: [UInt8](repeating: 0xEE, count: frontend.data.count).span)
    frontend.put(frontend.request(BlkIf.Operation.read, pages: [3, 7], sectors: 2...4, id: 1))
    #expect(try frontend.statuses(1) == [1: 0])
    var expected = [UInt8](repeating: 0xEE, count: frontend.data.count)
    for page in [3, 7] {
      let start = page * 4096 + 2 * 512
      expected.replaceSubrange(start..<start + 3 * 512, with: [UInt8](repeating: 0, count: 3 * 512))
    }
    #expect(frontend.data.copied() == expected)
    try stage.check()
  }
}

extension HostileBlkFrontend {
  /// An indirect request for whole pages, with its descriptors in one page of the data.
  func indirect(_ operation: UInt8, sector: UInt64 = 0, pages: [Int], in descriptorPage: Int, id: UInt64)
    -> BlkIfRequest
  {
    for (index, page) in pages.enumerated() {
      self.page(descriptorPage).slice(from: index * 8, count: 8).put(
        BlkIfSegment(gref: references[page], firstSector: 0, lastSector: 7))
    }
    var references = InlineArray<8, UInt32>(repeating: 0)
    references[0] = self.references[descriptorPage].rawValue
    return BlkIfRequest(
      BlkIfIndirectRequest(
        indirectOperation: operation, segmentCount: UInt16(pages.count), id: id, sectorNumber: sector,
        references: references))
  }
}
