import CRingOracle
import NetIf
import TestSupport
import Testing

/// Control requests and answers: the header's bytes, and the gate.
struct NetControlWireTests {
  /// What C writes into a slot.
  @unsafe private func oracle(_ fill: (UnsafeMutableRawPointer) -> UInt32) -> [UInt8] {
    var bytes = [UInt8](repeating: 0xEE, count: 16)
    // Safe: no struct of the control ring has more than 16 bytes.
    let count = unsafe bytes.withUnsafeMutableBytes { unsafe fill($0.baseAddress!) }
    return Array(bytes[..<Int(count)])
  }

  private func bytes<Slot: BitwiseCopyable>(_ slot: Slot) -> [UInt8] {
    // Safe: these slots have no padding.
    unsafe withUnsafeBytes(of: slot) { unsafe Array($0) }
  }

  @Test(.enabled(if: net_oracle_available(), "needs libxen-dev"))
  func slotsAreTheHeadersByteForByte() {
    // Safe: each writes no more bytes than a slot has.
    let request = NetIfControlRequest(id: 0x1234, type: 6, data: (0x8765_4321, 2, 0xFFFF_FFFE))
    let theirRequest = unsafe oracle { unsafe control_oracle_request(0x1234, 6, 0x8765_4321, 2, 0xFFFF_FFFE, $0) }
    #expect(bytes(request) == theirRequest)
    let response = NetIfControlResponse(id: 0x1234, type: 6, status: 3, data: 0x8765_4321)
    let theirResponse = unsafe oracle { unsafe control_oracle_response(0x1234, 6, 3, 0x8765_4321, $0) }
    #expect(bytes(response) == theirResponse)
    let mapping = NetIfGrantMapping(gref: GrantReference(rawValue: 0x8765_4321), flags: 1, status: 2)
    let theirMapping = unsafe oracle { unsafe control_oracle_gref(0x8765_4321, 1, 2, $0) }
    #expect(bytes(mapping) == theirMapping && theirMapping.count == NetIfGrantMapping.byteCount)
  }

  @Test(.enabled(if: net_oracle_available(), "needs libxen-dev"))
  func numbersAreTheHeaders() {
    let types: [NetControlType] = [
      .getHashFlags, .setHashFlags, .setHashKey, .getHashMappingSize, .setHashMappingSize, .setHashMapping,
      .setHashAlgorithm, .getGrantMappingSize, .addGrantMapping, .removeGrantMapping,
    ]
    #expect(types.map(\.rawValue) == types.indices.map { control_oracle_type(UInt32($0)) })
    let statuses: [NetControlStatus] = [.success, .notSupported, .invalidParameter, .bufferOverflow]
    #expect(statuses.map(\.rawValue) == statuses.indices.map { control_oracle_status(UInt32($0)) })
  }

  private func parse(_ type: UInt16, _ a: UInt32 = 0, _ b: UInt32 = 0, _ c: UInt32 = 0)
    -> Result<NetControlRequest, NetControlFault>
  {
    let raw = NetIfControlRequest(id: 1, type: type, data: (a, b, c))
    do throws(NetControlFault) { return .success(try NetControlRequest(parsing: raw)) } catch { return .failure(error) }
  }

  private static let page = GrantReference(rawValue: 0xFFFF_FFFF)

  /// Each operation, at its limits.
  private static let valid: [(NetControlRequest, inputByteCount: Int?)] = [
    (.getHashFlags, nil), (.setHashFlags([]), nil), (.setHashFlags(.all), nil),
    (.setHashKey(page, byteCount: 0), nil), (.setHashKey(page, byteCount: 40), 40), (.getHashMappingSize, nil),
    (.setHashMappingSize(0), nil), (.setHashMappingSize(128), nil),
    (.setHashMapping(page, entryCount: 0, offset: 128), nil), (.setHashMapping(page, entryCount: 128, offset: 0), 512),
    (.setHashMapping(page, entryCount: 1, offset: 127), 4), (.setHashAlgorithm(.none), nil),
    (.setHashAlgorithm(.toeplitz), nil), (.getGrantMappingSize(queue: 0xFFFF_FFFF), nil),
    (.addGrantMapping(queue: 1, page, entryCount: 1), 8), (.addGrantMapping(queue: 1, page, entryCount: 512), 4096),
    (.removeGrantMapping(queue: 1, page, entryCount: 512), 4096),
  ]

  @Test(arguments: valid.indices)
  func whatIsPutIntoASlotIsReadFromIt(index: Int) {
    let (request, inputByteCount) = Self.valid[index]
    let slot = request.slot(id: 0xABCD)
    #expect(slot.id == 0xABCD && slot.type == request.type.rawValue)
    #expect(parse(slot.type, slot.data.0, slot.data.1, slot.data.2) == .success(request))
    #expect(request.input?.byteCount == inputByteCount)
    #expect(request.input == nil || request.input?.reference == Self.page)
  }

  @Test(
    arguments: [
      (0, (0, 0, 0), .unknownType(0), .notSupported), (11, (0, 0, 0), .unknownType(11), .notSupported),
      (0xFFFF, (0, 0, 0), .unknownType(0xFFFF), .notSupported), (2, (16, 0, 0), .hashKinds(16), .invalidParameter),
      (2, (0xFFFF_FFFF, 0, 0), .hashKinds(0xFFFF_FFFF), .invalidParameter),
      (3, (1, 41, 0), .keyTooLong(byteCount: 41), .bufferOverflow),
      (3, (1, 0xFFFF_FFFF, 0), .keyTooLong(byteCount: 0xFFFF_FFFF), .bufferOverflow),
      (5, (129, 0, 0), .mappingSize(129), .invalidParameter),
      (5, (0xFFFF_FFFF, 0, 0), .mappingSize(0xFFFF_FFFF), .invalidParameter),
      (6, (1, 129, 0), .mappingTooLong(entryCount: 129, offset: 0), .bufferOverflow),
      (6, (1, 1, 128), .mappingTooLong(entryCount: 1, offset: 128), .bufferOverflow),
      // XSA-270: in 32 bits, these come to 127 and to nothing.
      (6, (1, 128, 0xFFFF_FFFF), .mappingTooLong(entryCount: 128, offset: 0xFFFF_FFFF), .bufferOverflow),
      (
        6, (1, 0x8000_0000, 0x8000_0000), .mappingTooLong(entryCount: 0x8000_0000, offset: 0x8000_0000), .bufferOverflow
      ),
      (7, (2, 0, 0), .algorithm(2), .invalidParameter), (9, (0, 1, 0), .grantListSize(0), .invalidParameter),
      (9, (0, 1, 513), .grantListSize(513), .invalidParameter),
      (10, (0, 1, 0), .grantListSize(0), .invalidParameter),
      (10, (0, 1, 0xFFFF_FFFF), .grantListSize(0xFFFF_FFFF), .invalidParameter),
    ] as [(UInt16, (UInt32, UInt32, UInt32), NetControlFault, NetControlStatus)])
  func whatIsOutOfBoundsIsRefused(
    type: UInt16, data: (UInt32, UInt32, UInt32), fault: NetControlFault, status: NetControlStatus
  ) {
    #expect(parse(type, data.0, data.1, data.2) == .failure(fault))
    #expect(fault.status == status && !"\(fault)".isEmpty)
  }
}
