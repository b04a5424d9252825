import Glibc
import RigSupport

/// What a connected guest does to its backend.
enum Attack: CaseIterable {
  /// A request producer that no ring allows.
  case badIndex
  /// Slots full of anything, which change all the while they are looked at.
  case mutatedSlots
  /// Events for nothing.
  case eventStorm
  /// Its own keys written as fast as the store takes them.
  case watchStorm
  /// Nothing: connecting and leaving are the attack.
  case connectionLoop
}

/// One frontend of a disk without a driver: it writes what it likes into its ring, its keys and its event channel.
final class Attacker {
  private static let slotByteCount = 112
  private static let slotCount: UInt32 = 32
  private let platform: NativePlatform
  private let own: StoreDirectory
  private let other: StoreDirectory
  private let backend: DomainID
  private var numbers: UInt64 = 0x9E37_79B9_7F4A_7C15
  private var connection: Connection?
  /// Responses that were put into its rings.
  private(set) var answerCount: UInt64 = 0

  /// The ring's page and one for payload, and who is woken for them.
  private final class Connection {
    let ring: GrantedPages
    let payload: GrantedPages
    let channel: EventChannel

    init(ring: consuming GrantedPages, payload: consuming GrantedPages, channel: EventChannel) {
      self.ring = ring
      self.payload = payload
      self.channel = channel
    }
  }

  init(at path: String) throws {
    platform = try NativePlatform()
    let store = try platform.openXenstore()
    own = StoreDirectory(path, in: store)
    other = StoreDirectory(try own.string("backend"), in: store)
    backend = DomainID(rawValue: try own.number("backend-id"))
  }

  var phase: String { (try? own.optionalString("phase")) ?? "" }

  private func write(_ entries: StoreEntry...) { try? own.write(entries) }

  private func random() -> UInt64 {
    numbers ^= numbers << 13
    numbers ^= numbers >> 7
    numbers ^= numbers << 17
    return numbers
  }

  private func waitForState(_ states: Set<String>) -> Bool {
    for _ in 0..<40 {
      if let state = try? other.optionalString("state"), states.contains(state) { return true }
      usleep(50_000)
    }
    return false
  }

  // MARK: One connection

  /// - Returns: false when the backend does not follow within some seconds.
  func connect() throws -> Bool {
    write(StoreEntry("state", 1))
    guard waitForState(["2"]) else { return false }
    let ring = try platform.grants.share(pageCount: 1, with: backend, writable: true)
    let payload = try platform.grants.share(pageCount: 1, with: backend, writable: true)
    let handle = try platform.openEventChannels()
    let channel = EventChannel(try handle.allocateUnbound(for: backend), on: handle)
    // The two events; the rest of a shared page is zero.
    put(1, at: 4, of: ring.bytes)
    put(1, at: 12, of: ring.bytes)
    write(
      StoreEntry("ring-ref", ring.references[0].rawValue), StoreEntry("event-channel", channel.port.rawValue),
      StoreEntry("protocol", "x86_64-abi"), StoreEntry("state", 3))
    connection = Connection(ring: ring, payload: payload, channel: channel)
    guard waitForState(["4"]) else { return false }
    write(StoreEntry("state", 4))
    return true
  }

  /// Leaves as the protocol says, or lets go of everything without a word and begins anew.
  func end(abruptly: Bool) {
    if !abruptly {
      write(StoreEntry("state", 5))
      _ = waitForState(["5", "6"])
      write(StoreEntry("state", 6))
      _ = waitForState(["6"])
    }
    if let connection { answerCount &+= UInt64(word(at: 8, of: connection.ring.bytes)) }
    connection = nil
  }

  func carryOut(_ attack: Attack) {
    switch attack {
    case .badIndex:
      put(UInt32(truncatingIfNeeded: random()) | 1 << 20, at: 0)
      notify()
    case .mutatedSlots:
      forOneSecond {
        push(Self.slotCount)
        for slot in 0..<Self.slotCount { mutate(slot) }
      }
    case .eventStorm: forOneSecond { notify() }
    case .watchStorm: forOneSecond { write(StoreEntry("state", 4), StoreEntry("storm-\(random() % 16)", random())) }
    case .connectionLoop: break
    }
  }

  /// Reads, as many as the ring holds.
  func load() {
    for slot in 0..<Self.slotCount { putRead(slot) }
    push(Self.slotCount)
    usleep(2_000)
  }

  private func forOneSecond(_ body: () -> Void) {
    let start = Uptime.now.nanoseconds
    while Uptime.now.nanoseconds - start < 1_000_000_000 { body() }
  }

  // MARK: The ring's bytes

  /// Shows as many more requests as the ring has room for.
  private func push(_ count: UInt32) {
    guard let connection else { return }
    let answered = word(at: 8, of: connection.ring.bytes)
    put(answered &+ count, at: 0)
    notify()
  }

  private func notify() { connection?.channel.notify() }

  /// A slot that is a request of a kind that there is, more often than not, and else anything.
  private func mutate(_ slot: UInt32) {
    guard let connection else { return }
    var bytes = (0..<Self.slotByteCount).map { _ in UInt8(truncatingIfNeeded: random() >> 24) }
    if random() % 4 != 0 {
      // The operation, the count of segments, and a sector that may lie on the disk.
      bytes[0] = UInt8(random() % 7)
      bytes[1] = UInt8(random() % 13)
      for place in 18..<24 { bytes[place] = 0 }
    }
    slotBytes(slot, connection.ring.bytes).copy(from: bytes.span)
  }

  /// A read of one page (io/blkif.h, `blkif_request`): the segment at byte 24.
  private func putRead(_ slot: UInt32) {
    guard let connection else { return }
    var bytes = [UInt8](repeating: 0, count: Self.slotByteCount)
    bytes[1] = 1
    bytes[8] = UInt8(slot)
    bytes[16] = UInt8(random() % 32 * 8)
    let reference = connection.payload.references[0].rawValue
    for place in 0..<4 { bytes[24 + place] = UInt8(truncatingIfNeeded: reference >> (8 * UInt32(place))) }
    bytes[29] = 7
    slotBytes(slot, connection.ring.bytes).copy(from: bytes.span)
  }

  private func slotBytes(_ slot: UInt32, _ ring: SharedBytes) -> SharedBytes {
    ring.slice(from: 64 + Int(slot % Self.slotCount) * Self.slotByteCount, count: Self.slotByteCount)
  }

  private func put(_ word: UInt32, at offset: Int) {
    if let connection { put(word, at: offset, of: connection.ring.bytes) }
  }

  private func put(_ word: UInt32, at offset: Int, of ring: SharedBytes) {
    let bytes = (0..<4).map { UInt8(truncatingIfNeeded: word >> (8 * UInt32($0))) }
    ring.slice(from: offset, count: 4).copy(from: bytes.span)
  }

  private func word(at offset: Int, of ring: SharedBytes) -> UInt32 {
    ring.slice(from: offset, count: 4).copied().reversed().reduce(0) { $0 << 8 | UInt32($1) }
  }
}
