import Glibc
import NetFront
import TestSupport
import Testing

/// NetFront's half of the control ring, against a backend that answers as it likes.
struct NetControlFrontTests {
  private let backend = RawControlBackend()
  private let key = [UInt8](1...40)

  private func pair(_ backend: RawControlBackend? = nil, features: NetFeatures = NetFeatures()) throws -> NetPair {
    let pair = try NetPair(features: features, backend: backend ?? self.backend)
    try pair.connect()
    return pair
  }

  /// Runs until the frontend asks for something.
  private func next(_ pair: NetPair) throws -> NetIfControlRequest? {
    var found: [NetIfControlRequest] = []
    _ = try pair.scheduler.run(turns: 500) {
      pair.pollCard()
      found = try backend.requests()
      return !found.isEmpty
    }
    #expect(found.count <= 1, "one at a time")
    return found.first
  }

  /// Answers everything: what is asked for with what a test says, and else with a success.
  ///
  /// - Returns: what was asked, in order, and the pages' bytes that came with it.
  private func run(
    _ pair: NetPair, answers: [NetControlType: (status: UInt32, data: UInt32)] = [:]
  ) throws -> (types: [NetControlType], inputs: [[UInt8]]) {
    var (types, inputs): ([NetControlType], [[UInt8]]) = ([], [])
    while let raw = try next(pair) {
      let request = try NetControlRequest(parsing: raw)
      types.append(request.type)
      if let input = request.input {
        inputs.append(try #require(backend.bytes(of: input.reference.rawValue, count: input.byteCount)))
        #expect(!backend.canWrite(input.reference.rawValue), "the backend only reads it")
      }
      let standard: UInt32 = request.type == .getHashFlags ? 15 : request.type == .getHashMappingSize ? 128 : 0
      let answer = answers[request.type] ?? (0, standard)
      backend.answer(raw, status: answer.status, data: answer.data)
    }
    return (types, inputs)
  }

  @Test func everythingIsAskedForInTurnAndHashingLast() throws {
    let pair = try pair()
    let wish = NetHashConfiguration(toeplitz: key, kinds: [.ipv4, .ipv4TCP], mapping: [1, 0, 2])
    pair.card.setHashing(wish)
    #expect(pair.card.hashing == .pending(wish))
    let (types, inputs) = try run(pair)
    #expect(
      types == [
        .setHashAlgorithm, .setHashKey, .getHashMappingSize, .setHashMappingSize, .setHashMapping, .setHashAlgorithm,
        .getHashFlags, .setHashFlags,
      ])
    #expect(inputs == [key, [1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]])
    #expect(pair.card.hashing == .set(wish))
    #expect(pair.card.isConnected && pair.frontBus.isConnected)
  }

  @Test func withoutAMappingOrAnAlgorithmLessIsAskedFor() throws {
    let pair = try pair()
    pair.card.setHashing(NetHashConfiguration(toeplitz: []))
    #expect(
      try run(pair).types == [
        .setHashAlgorithm, .setHashKey, .setHashMappingSize, .setHashAlgorithm, .getHashFlags, .setHashFlags,
      ])
    pair.card.setHashing(NetHashConfiguration())
    #expect(try run(pair).types == [.setHashAlgorithm])
    #expect(pair.card.hashing == .set(NetHashConfiguration()))
  }

  /// Whatever is refused, hashing is switched off, and the reason is what was refused first.
  @Test(
    arguments: [
      .setHashKey, .getHashMappingSize, .setHashMappingSize, .setHashMapping, .getHashFlags, .setHashFlags,
    ] as [NetControlType])
  func whatIsRefusedIsSaid(type: NetControlType) throws {
    let pair = try pair()
    let wish = NetHashConfiguration(toeplitz: key, mapping: [1, 0])
    pair.card.setHashing(wish)
    let types = try run(pair, answers: [type: (2, 0)]).types
    #expect(types.suffix(2) == [type, .setHashAlgorithm])
    #expect(pair.card.hashing == .failed(wish, .refused(type, .invalidParameter)))
    #expect(pair.card.isConnected)
  }

  @Test func aBackendThatKnowsNoAlgorithmIsAskedNoMore() throws {
    let pair = try pair()
    let wish = NetHashConfiguration(toeplitz: key)
    pair.card.setHashing(wish)
    #expect(try run(pair, answers: [.setHashAlgorithm: (1, 0)]).types == [.setHashAlgorithm, .setHashAlgorithm])
    #expect(pair.card.hashing == .failed(wish, .refused(.setHashAlgorithm, .notSupported)))
  }

  @Test func aBackendThatTakesLessSaysSo() throws {
    let pair = try pair()
    let wish = NetHashConfiguration(toeplitz: key, mapping: [0, 0, 0])
    pair.card.setHashing(wish)
    _ = try run(pair, answers: [.getHashMappingSize: (0, 2)])
    #expect(pair.card.hashing == .failed(wish, .mappingTooLong(entryCount: 3, limit: 2)))
    pair.card.setHashing(wish)
    _ = try run(pair, answers: [.getHashFlags: (0, 0xFFFF_FFFD)])
    #expect(pair.card.hashing == .failed(wish, .kinds(.ipv4TCP)))
  }

  /// One wish at a time is asked for, and the last one holds.
  @Test func aSecondWishFollowsTheFirst() throws {
    let pair = try pair()
    let (first, second) = (NetHashConfiguration(toeplitz: key), NetHashConfiguration(toeplitz: [7]))
    pair.card.setHashing(first)
    let raw = try #require(try next(pair))
    pair.card.setHashing(NetHashConfiguration(toeplitz: [6]))
    pair.card.setHashing(second)
    backend.answer(raw)
    let inputs = try run(pair).inputs
    #expect(inputs == [key, [7]])
    #expect(pair.card.hashing == .set(second))
  }

  @Test func withoutAControlRingNothingIsPublishedAndTheWishFails() throws {
    for (other, features) in [(RawControlBackend(offersControlRing: false), true), (RawControlBackend(), false)] {
      var wanted = NetFeatures()
      wanted.controlRing = features
      let pair = try pair(other, features: wanted)
      pair.card.setHashing(NetHashConfiguration(toeplitz: key))
      #expect(pair.card.hashing == .failed(NetHashConfiguration(toeplitz: key), .notOffered))
      #expect(!other.hasRing)
    }
  }

  @Test func aWishFromBeforeTheConnectionIsAskedFor() throws {
    let pair = try NetPair(backend: backend)
    let wish = NetHashConfiguration(toeplitz: key)
    pair.card.setHashing(wish)
    #expect(pair.card.hashing == .pending(wish))
    try pair.connect()
    _ = try run(pair)
    #expect(pair.card.hashing == .set(wish))
  }

  /// What no backend may say stops the device, with the reason.
  @Test(
    arguments: [
      ("id", "control request 9, which is not in flight"), ("type", "a control request of type 7 as one of 3"),
      ("status", "status 4, which means nothing"), ("producer", "control ring"),
    ])
  func anAnswerThatNoBackendMayGiveStopsTheDevice(what: String, reason: String) throws {
    let pair = try pair()
    pair.card.setHashing(NetHashConfiguration(toeplitz: key))
    let raw = try #require(try next(pair))
    switch what {
    case "id": backend.answer(raw, id: 9)
    case "type": backend.answer(raw, type: 3)
    case "status": backend.answer(raw, status: 4)
    default: backend.scribbleProducer(2)
    }
    let stopped = try pair.scheduler.run {
      pair.pollCard()
      return try pair.frontendError != nil
    }
    #expect(stopped && !pair.card.isConnected)
    let error = try #require(try pair.frontendError)
    #expect(error.contains(reason))
  }

  /// An answer wakes whoever waits for the card's descriptor, also when frames are taken at the same time.
  @Test func answersWakeTheCard() throws {
    let pair = try pair()
    let wish = NetHashConfiguration(toeplitz: key, mapping: [0])
    pair.card.setHashing(wish)
    var (askedCount, pollCount) = (0, 0)
    _ = try pair.scheduler.run(turns: 2000) {
      for raw in try backend.requests() {
        askedCount += 1
        backend.answer(raw, data: raw.type == 1 ? 15 : raw.type == 4 ? 128 : 0)
      }
      var waits = [pollfd(fd: try #require(pair.card.descriptor), events: Int16(POLLIN), revents: 0)]
      if Wakeup.wait(for: &waits, timeout: 0) {
        pollCount += 1
        pair.pollCard()
      }
      return pair.card.hashing == .set(wish)
    }
    #expect(askedCount == 8 && pollCount >= 8 && pair.card.hashing == .set(wish))
  }
}
