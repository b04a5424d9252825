import NetBack
import NetFront
import Testing

/// The second gate for what a card's frontend sends, fault by fault.
struct NetTransmitGateTests {
  private static let agreed = NetTxAgreement(
    scatterGather: true, offloads: .tcpv4Segmentation, multicastControl: true, hashes: true)

  private static func slot(_ size: UInt16, offset: UInt16 = 0, more: Bool = false, extra: Bool = false)
    -> NetIfTxRequest
  {
    NetIfTxRequest(
      gref: GrantReference(rawValue: 9), offset: offset,
      flags: (more ? NetIf.TxFlag.moreData : 0) | (extra ? NetIf.TxFlag.extraInfo : 0), id: 1, size: size)
  }

  private static func info(_ type: UInt8, more: Bool = false, _ words: (UInt16, UInt16, UInt16)) -> NetIfTxRequest {
    NetIfExtraInfo(type: type, flags: more ? NetIf.extraFlagMore : 0, words: words).transmitSlot
  }

  private func fault(_ slots: [NetIfTxRequest], _ agreement: NetTxAgreement = agreed) throws -> NetTxPacketFault? {
    var assembly = NetTxAssembly(agreement)
    var progress = NetTxAssembly.Progress.incomplete
    for slot in slots {
      #expect(progress == .incomplete)
      progress = try assembly.take(slot)
    }
    guard case .refused(let fault) = progress else { return nil }
    #expect("\(fault)" != "")
    // What follows is another packet.
    let next = try assembly.take(Self.slot(60))
    #expect(next == .packet)
    return fault
  }

  private static let group = MACAddress("01:00:5e:00:00:01")!
  private static let groupWords: (UInt16, UInt16, UInt16) = (0x0001, 0x005E, 0x0100)

  @Test func severalSlots() throws {
    let alone = NetTxAgreement(scatterGather: false)
    #expect(try fault([Self.slot(100, more: true), Self.slot(40)], alone) == .severalSlots)
  }

  @Test func unagreed() throws {
    let nothing = NetTxAgreement(scatterGather: true)
    for (slot, info) in [
      (Self.info(1, (1000, 1, 0)), .segmentation(.tcpv4, payloadByteCount: 1000)),
      (Self.info(2, Self.groupWords), .addMulticast(Self.group)),
      (Self.info(3, Self.groupWords), .removeMulticast(Self.group)),
      (Self.info(4, (0x0100, 7, 0)), .hash(.ipv4, value: 7)),
    ] as [(NetIfTxRequest, NetExtraInfo)] {
      #expect(try fault([Self.slot(100, extra: true), slot], nothing) == .unagreed(info))
    }
    // Of two kinds of segments the one that was not agreed on.
    #expect(
      try fault([Self.slot(100, extra: true), Self.info(1, (1000, 2, 0))])
        == .unagreed(.segmentation(.tcpv6, payloadByteCount: 1000)))
  }

  @Test func repeated() throws {
    for (type, words, info) in [
      (1, (1000, 1, 0), .segmentation(.tcpv4, payloadByteCount: 1000)),
      (2, Self.groupWords, .addMulticast(Self.group)), (4, (0x0100, 7, 0), .hash(.ipv4, value: 7)),
      (5, (64, 0, 0), .headroom(byteCount: 64)),
    ] as [(UInt8, (UInt16, UInt16, UInt16), NetExtraInfo)] {
      let slots = [Self.slot(100, extra: true), Self.info(type, more: true, words), Self.info(type, words)]
      #expect(try fault(slots) == .repeated(info))
    }
  }

  @Test(
    arguments: [
      (0, (0, 0, 0), .unknownType(0)), (6, (0, 0, 0), .unknownType(6)),
      (1, (9, 3, 0), .segmentation(type: 3, features: 0)), (1, (9, 1, 2), .segmentation(type: 1, features: 2)),
      (1, (0, 1, 0), .emptySegments), (2, (0, 0, 0), .noGroup(MACAddress("00:00:00:00:00:00")!)),
      (4, (0x0104, 0, 0), .hash(type: 4, algorithm: 1)), (4, (0x0200, 0, 0), .hash(type: 0, algorithm: 2)),
      (5, (0x8000, 0, 0), .headroom(byteCount: 0x8000)),
    ] as [(UInt8, (UInt16, UInt16, UInt16), NetExtraInfoFault)])
  func extraInfo(type: UInt8, words: (UInt16, UInt16, UInt16), expected: NetExtraInfoFault) throws {
    #expect(try fault([Self.slot(100, extra: true), Self.info(type, words)]) == .extraInfo(expected))
    #expect("\(expected)" != "")
  }

  @Test func sizesAndPlaces() throws {
    #expect(try fault([Self.slot(13)]) == .tooShort(byteCount: 13))
    #expect(try fault([Self.slot(100, offset: 4000)]) == .outsidePage(offset: 4000, byteCount: 100))
    #expect(
      try fault([Self.slot(200, more: true), Self.slot(9, offset: .max)]) == .outsidePage(offset: .max, byteCount: 9))
    #expect(
      try fault([Self.slot(100, more: true), Self.slot(100)]) == .sizes(byteCount: 100, furtherByteCount: 100))
  }

  @Test func tooManyFragments() throws {
    let slots = (0..<19).map { Self.slot($0 == 0 ? 1000 : 10, more: $0 < 18) }
    #expect(try fault(slots) == .tooManyFragments)
  }

  @Test func whatNoFrontendMaySend() throws {
    var fragments = NetTxAssembly(Self.agreed)
    for _ in 0..<20 { _ = try fragments.take(Self.slot(1000, more: true)) }
    #expect(throws: NetTxViolation.tooManyFragments) { _ = try fragments.take(Self.slot(1000, more: true)) }
    var infos = NetTxAssembly(Self.agreed)
    _ = try infos.take(Self.slot(1000, extra: true))
    for _ in 0..<5 { _ = try infos.take(Self.info(9, more: true, (0, 0, 0))) }
    #expect(throws: NetTxViolation.tooManyExtraInfos) { _ = try infos.take(Self.info(9, more: true, (0, 0, 0))) }
    #expect(
      "\(NetTxViolation.tooManyFragments) \(NetTxViolation.tooManyExtraInfos)".contains("more than 5 extra infos"))
  }
}

/// The second gate for what a card's backend answers, fault by fault.
struct NetResponseGateTests {
  private static let plain = NetRxAgreement(scatterGather: false)

  private func violation(_ body: () throws(NetResponseViolation) -> Void) -> NetResponseViolation? {
    do throws(NetResponseViolation) {
      try body()
      return nil
    } catch {
      #expect("\(error)" != "")
      return error
    }
  }

  @Test(arguments: [1, 2, .max] as [Int16]) func txStatus(status: Int16) {
    let found = violation { () throws(NetResponseViolation) in
      _ = try NetTxResult(parsing: NetIfTxResponse(id: 3, status: status))
    }
    // One is `NETIF_RSP_NULL`, which answers an extra info.
    #expect(found == (status == NetIf.Status.null ? nil : .txStatus(id: 3, status: status)))
  }

  @Test func rxOutOfSlot() {
    let found = violation { () throws(NetResponseViolation) in
      _ = try NetRxFragment(parsing: NetIfRxResponse(id: 4, status: 60), in: 3, under: Self.plain)
    }
    #expect(found == .rxOutOfSlot(slot: 3, id: 4))
  }

  @Test(arguments: [NetIf.RxFlag.moreData, NetIf.RxFlag.extraInfo, NetIf.RxFlag.gsoPrefix] as [UInt16])
  func rxNotNegotiated(flags: UInt16) {
    let found = violation { () throws(NetResponseViolation) in
      _ = try NetRxFragment(parsing: NetIfRxResponse(id: 3, flags: flags, status: 60), in: 3, under: Self.plain)
    }
    #expect(found == .rxNotNegotiated(slot: 3, flags: flags))
  }

  @Test(arguments: [(0, 4097), (4096, 1), (.max, .max)] as [(UInt16, Int16)])
  func rxOutsidePage(offset: UInt16, byteCount: Int16) {
    let found = violation { () throws(NetResponseViolation) in
      _ = try NetRxFragment(
        parsing: NetIfRxResponse(id: 3, offset: offset, flags: 0, status: byteCount), in: 3, under: Self.plain)
    }
    #expect(found == .rxOutsidePage(slot: 3, offset: offset, byteCount: byteCount))
  }

  @Test func rxTooManyExtraInfos() {
    var infos = NetRxExtraInfos()
    let found = violation { () throws(NetResponseViolation) in
      for _ in 0..<6 {
        _ = try infos.take(
          NetIfExtraInfo(type: 9, flags: NetIf.extraFlagMore, words: (0, 0, 0)),
          under: NetRxAgreement(scatterGather: true))
      }
    }
    #expect(found == .rxTooManyExtraInfos && infos.count == 5 && infos.isFaulty)
  }
}

/// The second gate for a card's control ring, fault by fault, and what each is answered with.
struct NetControlGateTests {
  private func fault(_ type: UInt16, _ data: (UInt32, UInt32, UInt32)) -> NetControlFault? {
    do throws(NetControlFault) {
      _ = try NetControlRequest(parsing: NetIfControlRequest(id: 1, type: type, data: data))
      return nil
    } catch { return error }
  }

  private func expect(_ found: NetControlFault?, _ expected: NetControlFault, _ status: NetControlStatus) {
    #expect(found == expected && found?.status == status && "\(expected)" != "")
  }

  @Test func whatASlotMayNotSay() {
    expect(fault(0, (0, 0, 0)), .unknownType(0), .notSupported)
    expect(fault(11, (0, 0, 0)), .unknownType(11), .notSupported)
    expect(fault(2, (16, 0, 0)), .hashKinds(16), .invalidParameter)
    expect(fault(3, (9, 41, 0)), .keyTooLong(byteCount: 41), .bufferOverflow)
    expect(fault(5, (129, 0, 0)), .mappingSize(129), .invalidParameter)
    expect(fault(6, (9, 1, 128)), .mappingTooLong(entryCount: 1, offset: 128), .bufferOverflow)
    // The sum of the two does not wrap.
    expect(fault(6, (9, .max, 2)), .mappingTooLong(entryCount: .max, offset: 2), .bufferOverflow)
    expect(fault(7, (2, 0, 0)), .algorithm(2), .invalidParameter)
    for count in [0, 513, .max] as [UInt32] {
      expect(fault(9, (0, 9, count)), .grantListSize(count), .invalidParameter)
      expect(fault(10, (0, 9, count)), .grantListSize(count), .invalidParameter)
    }
  }

  private func fault(
    _ request: NetControlRequest, _ input: [UInt8] = [], on configuration: inout NetHashConfiguration
  ) -> NetControlFault? {
    let before = configuration
    do throws(NetControlFault) {
      _ = try configuration.apply(request, input: input.span, queueCount: 2)
      return nil
    } catch {
      #expect(configuration == before, "what is refused changes nothing")
      return error
    }
  }

  @Test func whatAConfigurationDoesNotTake() {
    var configuration = NetHashConfiguration()
    let page = GrantReference(rawValue: 9)
    expect(fault(.getHashFlags, on: &configuration), .noAlgorithmToAskAbout, .notSupported)
    expect(fault(.setHashFlags(.ipv4), on: &configuration), .noAlgorithm, .invalidParameter)
    expect(fault(.getGrantMappingSize(queue: 0), on: &configuration), .noGrantMapping, .notSupported)
    expect(
      fault(.setHashMapping(page, entryCount: 1, offset: 0), [0, 0, 0, 0], on: &configuration),
      .outsideMapping(entryCount: 1, offset: 0, size: 0), .invalidParameter)
    #expect(fault(.setHashMappingSize(2), on: &configuration) == nil)
    expect(
      fault(.setHashMapping(page, entryCount: 2, offset: 0), [0, 0, 0, 0, 2, 0, 0, 0], on: &configuration),
      .noSuchQueue(2, queueCount: 2), .invalidParameter)
    #expect(configuration.mapping == [0, 0])
  }

  @Test func whatNoBackendMayAnswer() {
    func violation(_ raw: NetIfControlResponse) -> NetControlViolation? {
      do throws(NetControlViolation) {
        _ = try NetControlAnswer(parsing: raw, to: NetIfControlRequest(id: 5, type: 2, data: (0, 0, 0)))
        return nil
      } catch {
        #expect("\(error)" != "")
        return error
      }
    }
    #expect(violation(NetIfControlResponse(id: 6, type: 2, status: 0, data: 0)) == .notInFlight(id: 6))
    #expect(violation(NetIfControlResponse(id: 5, type: 3, status: 0, data: 0)) == .type(3, expected: 2))
    #expect(violation(NetIfControlResponse(id: 5, type: 2, status: 4, data: 0)) == .status(4))
    #expect(violation(NetIfControlResponse(id: 5, type: 2, status: 3, data: 0)) == nil)
  }
}
