import XenBus
import XenLoopback
import XenPlatform

/// One end of a device, played by a test: a process of its own that keeps to no protocol. Each key, page, byte of a ring and
/// event is the test's, past our drivers, rings and buses.
public final class HostilePeer {
  /// The process; more can be had, of the same domain, as mappings of one's own ask for.
  public let process: LoopbackDomain
  /// Its directory, and the victim's.
  public let own: StoreDirectory
  public let other: StoreDirectory
  public let otherDomain: DomainID

  private final class Shared {
    let pages: GrantedPages

    init(_ pages: consuming GrantedPages) { self.pages = pages }
  }

  private final class Mapped {
    let region: SharedRegion

    init(_ region: consuming SharedRegion) { self.region = region }
  }

  private var shared: [String: Shared] = [:]
  private var mapped: [String: Mapped] = [:]
  private var channels: [String: EventChannel] = [:]

  /// - Parameters:
  ///   - process: a process of the hostile domain.
  ///   - own: its end's directory.
  ///   - other: the victim's.
  public init(_ process: LoopbackDomain, own: String, other: String, of otherDomain: DomainID) throws {
    let store = try process.openXenstore()
    self.process = process
    self.own = StoreDirectory(own, in: store)
    self.other = StoreDirectory(other, in: store)
    self.otherDomain = otherDomain
  }

  // MARK: Keys

  public func write(_ key: String, _ value: String) throws { try own.write([StoreEntry(key, value)]) }

  public func write(_ key: String, _ number: some FixedWidthInteger) throws { try write(key, "\(number)") }

  /// Bytes that are no text, too.
  public func write(_ key: String, bytes: [UInt8]) throws { try own.store.write(own.path(of: key), bytes, in: nil) }

  public func write(_ state: XenbusState) throws { try write("state", state.rawValue) }

  public var otherState: XenbusState { get throws { XenbusState(key: try other.optionalString("state")) } }

  // MARK: Pages

  /// Shares new pages under a name of the test's; those of that name before are shared no more.
  @discardableResult
  public func share(_ name: String, pageCount: Int = 1, writable: Bool = true) throws -> [GrantReference] {
    shared[name] = nil
    let pages = try process.grants.share(pageCount: pageCount, with: otherDomain, writable: writable)
    let references = pages.references
    shared[name] = Shared(pages)
    return references
  }

  public func references(of name: String) -> [GrantReference] { shared[name]!.pages.references }

  public func unshare(_ name: String) { shared[name] = nil }

  /// Maps pages of the victim's.
  public func map(_ name: String, _ references: [GrantReference], writable: Bool = true) throws {
    mapped[name] = nil
    mapped[name] = Mapped(try process.grants.map(references, of: otherDomain, writable: writable))
  }

  public func unmap(_ name: String) { mapped[name] = nil }

  /// What is shared or mapped under this name.
  public func bytes(_ name: String) -> SharedBytes { shared[name]?.pages.bytes ?? mapped[name]!.region.bytes }

  public func ring(_ name: String, stride: Int) -> HostileRing { HostileRing(bytes(name), stride: stride) }

  /// Looks at what the victim has granted, and whether it has.
  public func peek(_ reference: GrantReference) -> [UInt8]? {
    guard let region = try? process.grants.map([reference], of: otherDomain, writable: false) else { return nil }
    let bytes = region.bytes.copied()
    // Mapped until here.
    _ = consume region
    return bytes
  }

  // MARK: Events

  @discardableResult
  public func allocateChannel(_ name: String = "") throws -> EventChannelPort {
    let handle = try process.openEventChannels()
    let port = try handle.allocateUnbound(for: otherDomain)
    channels[name] = EventChannel(port, on: handle)
    return port
  }

  public func bindChannel(_ name: String = "", to port: EventChannelPort) throws {
    let handle = try process.openEventChannels()
    channels[name] = EventChannel(try handle.bindInterdomain(to: otherDomain, port: port), on: handle)
  }

  public func notify(_ name: String = "") { channels[name]?.notify() }

  /// Lets go of one channel.
  public func closeChannel(_ name: String = "") { channels[name] = nil }

  /// Lets go of every page and channel, as the end of its process would, and says nothing in the store.
  public func dropAll() { (shared, mapped, channels) = ([:], [:], [:]) }
}

/// A ring's page or pages as bytes: four words, and slots from byte 64 on (io/ring.h). Nothing is checked.
public struct HostileRing: Sendable {
  public let bytes: SharedBytes
  public let stride: Int
  /// The largest power of two that fits.
  public let entryCount: Int

  public init(_ bytes: SharedBytes, stride: Int) {
    self.bytes = bytes
    self.stride = stride
    let room = (bytes.count - 64) / stride
    entryCount = 1 << (Int.bitWidth - 1 - room.leadingZeroBitCount)
  }

  public var requestProducer: UInt32 {
    get { bytes.word(at: 0) }
    nonmutating set { bytes.scribble(newValue, at: 0) }
  }
  public var requestEvent: UInt32 {
    get { bytes.word(at: 4) }
    nonmutating set { bytes.scribble(newValue, at: 4) }
  }
  public var responseProducer: UInt32 {
    get { bytes.word(at: 8) }
    nonmutating set { bytes.scribble(newValue, at: 8) }
  }
  public var responseEvent: UInt32 {
    get { bytes.word(at: 12) }
    nonmutating set { bytes.scribble(newValue, at: 12) }
  }

  /// As `SHARED_RING_INIT` leaves it.
  public func initialise(at index: UInt32 = 0) {
    bytes.zero()
    (requestProducer, requestEvent, responseProducer, responseEvent) = (index, index &+ 1, index, index &+ 1)
  }

  /// The bytes of the slot of an index.
  public func slot(_ index: UInt32) -> SharedBytes {
    bytes.slice(from: 64 + Int(index) % entryCount * stride, count: stride)
  }

  /// Writes an entry over the start of a slot.
  public func put(_ entry: some BitwiseCopyable, at index: UInt32) { slot(index).put(entry) }

  /// Writes a request and shows it.
  public func request(_ entry: some BitwiseCopyable) {
    put(entry, at: requestProducer)
    requestProducer &+= 1
  }

  /// Writes a response and shows it.
  public func respond(_ entry: some BitwiseCopyable) {
    put(entry, at: responseProducer)
    responseProducer &+= 1
  }

  /// What a slot holds, read as an entry.
  public func entry<Entry: BitwiseCopyable>(_ index: UInt32, as type: Entry.Type = Entry.self) -> Entry {
    slot(index).entry()
  }
}

extension SharedBytes {
  /// A little-endian word.
  public func word(at offset: Int) -> UInt32 {
    slice(from: offset, count: 4).copied().reversed().reduce(0) { $0 << 8 | UInt32($1) }
  }

  /// Copies an entry over the start.
  public func put<Entry: BitwiseCopyable>(_ entry: Entry) {
    unsafe withUnsafeBytes(of: entry) { bytes in
      // Safe: the entry's own bytes, which nobody writes to.
      let source = unsafe SharedBytes(
        baseAddress: UnsafeMutableRawPointer(mutating: bytes.baseAddress!), count: min(bytes.count, count))
      copy(from: source)
    }
  }

  /// The start read as an entry, copied once.
  public func entry<Entry: BitwiseCopyable>(as type: Entry.Type = Entry.self) -> Entry {
    let copy = slice(from: 0, count: MemoryLayout<Entry>.size).copied()
    // Safe: as many bytes as the entry has, of which any are one.
    return unsafe copy.withUnsafeBytes { unsafe $0.loadUnaligned(as: Entry.self) }
  }
}
