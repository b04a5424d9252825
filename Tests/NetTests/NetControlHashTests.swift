import NetIf
import TestSupport
import Testing

/// What control requests make of the hash configuration, and what that makes of packets.
struct NetControlHashTests {
  private static let page = GrantReference(rawValue: 9)

  /// Does the request; nil for the data when it is refused.
  private func apply(
    _ request: NetControlRequest, input: [UInt8] = [], to configuration: inout NetHashConfiguration, queueCount: Int = 4
  ) -> Result<UInt32, NetControlFault> {
    do throws(NetControlFault) {
      return .success(try configuration.apply(request, input: input.span, queueCount: queueCount))
    } catch { return .failure(error) }
  }

  private func entries(_ numbers: [UInt32]) -> [UInt8] {
    numbers.flatMap { number in (0..<4).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) } }
  }

  @Test func aFrontendSetsEverythingInTurn() {
    var configuration = NetHashConfiguration()
    let key = [UInt8](1...40)
    #expect(apply(.setHashAlgorithm(.toeplitz), to: &configuration) == .success(0))
    #expect(apply(.getHashFlags, to: &configuration) == .success(15))
    #expect(apply(.getHashMappingSize, to: &configuration) == .success(128))
    #expect(apply(.setHashFlags([.ipv4, .ipv6TCP]), to: &configuration) == .success(0))
    #expect(apply(.setHashKey(Self.page, byteCount: 40), input: key, to: &configuration) == .success(0))
    #expect(apply(.setHashMappingSize(4), to: &configuration) == .success(0))
    #expect(configuration.mapping == [0, 0, 0, 0])
    let part = apply(
      .setHashMapping(Self.page, entryCount: 2, offset: 1), input: entries([3, 2]), to: &configuration)
    #expect(part == .success(0))
    #expect(configuration == NetHashConfiguration(toeplitz: key, kinds: [.ipv4, .ipv6TCP], mapping: [0, 3, 2, 0]))
    #expect(configuration.mappingBytes == entries([0, 3, 2, 0]))
  }

  /// io/netif.h: a new key invalidates the old one, a new size the old table, and no algorithm the hash.
  @Test func eachIsReplacedWhole() {
    var configuration = NetHashConfiguration(toeplitz: [UInt8](1...40), mapping: [1, 2, 3])
    #expect(apply(.setHashKey(Self.page, byteCount: 3), input: [7, 8, 9], to: &configuration) == .success(0))
    #expect(configuration.key == [7, 8, 9])
    #expect(apply(.setHashKey(Self.page, byteCount: 0), to: &configuration) == .success(0))
    #expect(configuration.key.isEmpty)
    #expect(apply(.setHashMappingSize(2), to: &configuration) == .success(0))
    #expect(configuration.mapping == [0, 0])
    #expect(apply(.setHashMappingSize(0), to: &configuration) == .success(0))
    #expect(configuration.mapping.isEmpty)
    #expect(apply(.setHashAlgorithm(.none), to: &configuration) == .success(0))
    #expect(NetHashSteering(configuration, queueCount: 4) == nil)
  }

  @Test func kindsNeedAnAlgorithm() {
    var configuration = NetHashConfiguration()
    #expect(apply(.getHashFlags, to: &configuration) == .failure(.noAlgorithmToAskAbout))
    #expect(apply(.setHashFlags(.all), to: &configuration) == .failure(.noAlgorithm))
    #expect(NetControlFault.noAlgorithmToAskAbout.status == .notSupported)
    #expect(NetControlFault.noAlgorithm.status == .invalidParameter)
    #expect(configuration == NetHashConfiguration())
  }

  /// A refused request leaves the table as it was, whole.
  @Test func entriesOutsideTheTableOrTheQueuesAreRefusedWhole() {
    var configuration = NetHashConfiguration(toeplitz: [1], mapping: [3, 2, 1, 0])
    let before = configuration
    let cases: [([UInt32], offset: Int, NetControlFault)] = [
      ([0], 4, .outsideMapping(entryCount: 1, offset: 4, size: 4)),
      ([0, 0, 0, 0, 0], 0, .outsideMapping(entryCount: 5, offset: 0, size: 4)),
      ([0, 0], 3, .outsideMapping(entryCount: 2, offset: 3, size: 4)),
      ([], 5, .outsideMapping(entryCount: 0, offset: 5, size: 4)),
      ([1, 4], 0, .noSuchQueue(4, queueCount: 4)), ([0xFFFF_FFFF], 0, .noSuchQueue(0xFFFF_FFFF, queueCount: 4)),
      ([0, 0, 0, 0x0100_0000], 0, .noSuchQueue(0x0100_0000, queueCount: 4)),
    ]
    for (numbers, offset, fault) in cases {
      let request = NetControlRequest.setHashMapping(Self.page, entryCount: numbers.count, offset: offset)
      #expect(apply(request, input: entries(numbers), to: &configuration) == .failure(fault))
      #expect(fault.status == .invalidParameter && configuration == before)
    }
    #expect(
      apply(.setHashMapping(Self.page, entryCount: 0, offset: 4), to: &configuration) == .success(0))
  }

  /// Whatever a hostile frontend asks for, the table names queues that there are.
  @Test(arguments: seeds(1...40, of: NetControlHashTests.self))
  func randomRequestsLeaveAConfigurationThatCanBeUsed(seed: Seed) throws {
    var random = SeededGenerator(seed)
    var configuration = NetHashConfiguration()
    var doneCount = 0
    let frame = TestPacket().bytes
    for _ in 0..<500 {
      let word = { (random: inout SeededGenerator) -> UInt32 in
        [
          UInt32.random(in: 0...5, using: &random), .random(in: 0...130, using: &random),
          UInt32.random(in: 0...UInt32.max, using: &random),
        ]
        .randomElement(using: &random)!
      }
      let raw = NetIfControlRequest(
        id: 0, type: .random(in: 0...11, using: &random), data: (word(&random), word(&random), word(&random)))
      guard let request = try? NetControlRequest(parsing: raw) else { continue }
      let input = (0..<(request.input?.byteCount ?? 0)).map { place -> UInt8 in
        place % 4 == 0 ? .random(in: 0...4, using: &random) : .random(in: 0...9, using: &random) / 9
      }
      if case .success = apply(request, input: input, to: &configuration) { doneCount += 1 }
      #expect(configuration.mapping.allSatisfy { $0 < 4 } && configuration.mapping.count <= 128)
      guard let steering = NetHashSteering(configuration, queueCount: 4) else { continue }
      #expect((0..<4).contains(queue(of: frame, steering)))
    }
    #expect(doneCount > 0)
  }

  // MARK: Packets

  private func hash(of frame: [UInt8], _ steering: NetHashSteering) -> NetPacketMetadata.Hash? {
    steering.hash(of: frame.span)
  }

  private func queue(of frame: [UInt8], _ steering: NetHashSteering) -> Int {
    steering.queue(for: steering.hash(of: frame.span))
  }

  private func toeplitz(of frame: [UInt8], key: [UInt8], withPorts: Bool) -> UInt32? {
    NetFlow(of: frame.span).map { Toeplitz(key: key.span).value(of: $0, withPorts: withPorts) }
  }

  /// io/netif.h: the most of the kinds that are set, and that fit; UDP has but addresses.
  @Test(
    arguments: [
      (.all, .ipv4TCP, true), ([.ipv4], .ipv4, false), ([.ipv4TCP], .ipv4TCP, true), ([.ipv6, .ipv6TCP], nil, false),
    ] as [(NetHashKinds, NetExtraInfo.HashKind?, Bool)])
  func theMostOfWhatIsAskedForIsHashed(kinds: NetHashKinds, kind: NetExtraInfo.HashKind?, withPorts: Bool) throws {
    let key = [UInt8](1...40)
    let steering = try #require(
      NetHashSteering(NetHashConfiguration(toeplitz: key, kinds: kinds), queueCount: 4))
    let tcp = TestPacket().bytes
    let expected = kind.map { NetPacketMetadata.Hash($0, value: toeplitz(of: tcp, key: key, withPorts: withPorts)!) }
    #expect(hash(of: tcp, steering) == expected)
    var ipv6Packet = TestPacket(network: .ipv6).bytes
    #expect(hash(of: ipv6Packet, steering)?.kind == (kinds.contains(.ipv6TCP) ? .ipv6TCP : nil))
    ipv6Packet[20] = 58
    #expect(hash(of: ipv6Packet, steering)?.kind == (kinds.contains(.ipv6) ? .ipv6 : nil))
    let udp = TestPacket(transport: .udp).bytes
    #expect(hash(of: udp, steering)?.kind == (kinds.contains(.ipv4) ? .ipv4 : nil))
    if kinds.contains(.ipv4) {
      #expect(hash(of: udp, steering)?.value == toeplitz(of: udp, key: key, withPorts: false))
    }
  }

  @Test func theMappingIsIndexedByTheHash() throws {
    let key = [UInt8](1...40)
    let mapping: [UInt32] = [3, 1, 2, 0, 2]
    let steering = try #require(
      NetHashSteering(NetHashConfiguration(toeplitz: key, mapping: mapping), queueCount: 4))
    let modulo = try #require(NetHashSteering(NetHashConfiguration(toeplitz: key), queueCount: 3))
    for port in 0..<64 as Range<UInt16> {
      let frame = TestPacket(ports: (1000 + port, 80)).bytes
      let value = try #require(toeplitz(of: frame, key: key, withPorts: true))
      #expect(queue(of: frame, steering) == Int(mapping[Int(value % 5)]))
      #expect(queue(of: frame, modulo) == Int(value % 3))
    }
    // What has no hash goes where a hash of zero does.
    let arp = [UInt8](repeating: 0xFF, count: 12) + [8, 6] + [UInt8](repeating: 0, count: 28)
    #expect(hash(of: arp, steering) == nil && queue(of: arp, steering) == 3)
  }

  @Test func withoutKindsTheBackendIsFreeToChoose() {
    #expect(NetHashSteering(NetHashConfiguration(toeplitz: [1], kinds: []), queueCount: 4) == nil)
    #expect(NetHashSteering(NetHashConfiguration(), queueCount: 4) == nil)
  }
}
