#if canImport(CXen)
  import CXen
  import Foundation
  import Synchronization
  import XenPlatform

  /// A guest's one connection to a ``Xenstored``: the shared page and the event channel that a kernel uses
  /// (io/xs_wire.h, struct xenstore_domain_interface), with the guest's rights, home and quotas.
  ///
  /// A directory that is longer than a message cannot be listed. For one thread at a time.
  @safe package final class GuestXenstore: Xenstore, @unchecked Sendable {
    /// The protocol's numbers (enum xsd_sockmsg_type).
    private enum Kind: UInt32 {
      case directory = 1
      case read, permissions, watch, unwatch, start, end
      case write = 11
      case makeDirectory, remove, setPermissions, event, error
    }

    private let page: UnsafeMutableRawPointer
    private let port: CInt
    private let farEnd: sockaddr_un
    private let domain: DomainID
    private var input: [UInt8] = []
    private var events: [XenstoreWatchEvent] = []

    private static let portNumber: UInt32 = 1
    private static let ringByteCount = 1024
    private static let pageByteCount = 4096

    /// Introduces the domain, which is there and has not been introduced, to xenstored.
    package init(_ domain: DomainID, of daemon: Xenstored) throws {
      self.domain = domain
      let grant = unsafe open("\(daemon.folder)/grant-\(domain.rawValue)", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
      defer { close(grant) }
      // Safe: a mapping of our own, unmapped in the end.
      guard ftruncate(grant, Self.pageByteCount) == 0,
        let page = unsafe mmap(nil, Self.pageByteCount, PROT_READ | PROT_WRITE, MAP_SHARED, grant, 0),
        unsafe page != MAP_FAILED
      else { throw XenstoredError("cannot share a page: \(ChildProgram.words(for: errno))") }
      unsafe self.page = page
      farEnd = Self.address("\(daemon.folder)/events")
      port = socket(AF_UNIX, CInt(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
      var own = Self.address("\(daemon.folder)/port-\(domain.rawValue)-\(Self.portNumber)")
      guard unsafe Self.withAddress(&own, { unsafe bind(port, $0, $1) }) == 0 else {
        throw XenstoredError("cannot make an event channel: \(ChildProgram.words(for: errno))")
      }
      try daemon.introduce(domain, port: Self.portNumber)
    }

    deinit {
      unsafe munmap(page, Self.pageByteCount)
      close(port)
    }

    // MARK: The page

    private enum Index: Int {
      case requestConsumer = 2048
      case requestProducer = 2052
      case responseConsumer = 2056
      case responseProducer = 2060
    }

    private func index(_ index: Index) -> UInt32 {
      // Safe: the four indices are aligned and lie in the page.
      unsafe (page + index.rawValue).assumingMemoryBound(to: Atomic<UInt32>.self).pointee.load(ordering: .acquiring)
    }

    private func set(_ index: Index, _ value: UInt32) {
      // Safe: as above.
      unsafe (page + index.rawValue).assumingMemoryBound(to: Atomic<UInt32>.self).pointee.store(
        value, ordering: .releasing)
    }

    private func notify() {
      var event = (UInt32(domain.rawValue), Self.portNumber)
      var farEnd = farEnd
      // Safe: both values are only read.
      _ = unsafe Self.withAddress(&farEnd) { address, count in
        unsafe sendto(port, &event, MemoryLayout.size(ofValue: event), CInt(MSG_NOSIGNAL), address, count)
      }
    }

    /// Sleeps until xenstored has notified us, or for a while.
    private func sleep() {
      Wakeup.wait(for: port, timeout: 100)
      var event = (UInt32(0), UInt32(0))
      // Safe: there is room for one event.
      while unsafe recv(port, &event, MemoryLayout.size(ofValue: event), CInt(MSG_DONTWAIT)) > 0 {}
    }

    private func send(_ bytes: [UInt8]) {
      for byte in bytes {
        while index(.requestProducer) &- index(.requestConsumer) == Self.ringByteCount {
          notify()
          receive()
          sleep()
        }
        let producer = index(.requestProducer)
        // Safe: within the ring of requests.
        unsafe page.storeBytes(of: byte, toByteOffset: Int(producer % 1024), as: UInt8.self)
        set(.requestProducer, producer &+ 1)
      }
      notify()
    }

    /// Takes what has come; gives whether anything had.
    @discardableResult private func receive() -> Bool {
      let (consumer, producer) = (index(.responseConsumer), index(.responseProducer))
      var next = consumer
      while next != producer {
        // Safe: within the ring of responses.
        input.append(unsafe page.load(fromByteOffset: Self.ringByteCount + Int(next % 1024), as: UInt8.self))
        next &+= 1
      }
      guard next != consumer else { return false }
      set(.responseConsumer, next)
      notify()
      return true
    }

    // MARK: Messages

    private func request(
      _ kind: Kind, _ operation: String, _ path: String, in transaction: XenstoreTransaction? = nil, _ payload: [UInt8]
    ) throws(XenstoreError) -> [UInt8] {
      if path.utf8.contains(0) { throw XenstoreError(.invalid, operation, path) }
      if payload.count > 4096 { throw XenstoreError(.tooBig, operation, path) }
      let header = [kind.rawValue, 0, transaction?.rawValue ?? 0, UInt32(payload.count)]
      send(header.flatMap { word in (0..<4).map { UInt8(truncatingIfNeeded: word >> (8 * $0)) } } + payload)
      let start = Uptime.now.nanoseconds
      while true {
        while let (kind, body) = nextMessage() {
          switch kind {
          case .event?:
            let strings = Self.strings(body)
            events.append(XenstoreWatchEvent(path: strings[0], token: strings[1]))
          case .error?: throw XenstoreError(Self.code(Self.strings(body)[0]), operation, path)
          default: return body
          }
        }
        if !receive() { sleep() }
        if Uptime.now.nanoseconds - start > 20_000_000_000 {
          throw XenstoreError(.system("xenstored has not answered for 20 s"), operation, path)
        }
      }
    }

    private func nextMessage() -> (Kind?, [UInt8])? {
      guard input.count >= 16 else { return nil }
      func word(_ offset: Int) -> UInt32 { (0..<4).reduce(0) { $0 | UInt32(input[offset + $1]) << (8 * UInt32($1)) } }
      let end = 16 + Int(word(12))
      guard input.count >= end else { return nil }
      defer { input.removeFirst(end) }
      return (Kind(rawValue: word(0)), Array(input[16..<end]))
    }

    private static func strings(_ bytes: [UInt8]) -> [String] {
      bytes.split(separator: 0, omittingEmptySubsequences: false).dropLast().map { String(decoding: $0, as: UTF8.self) }
    }

    private static func code(_ name: String) -> XenstoreError.Code {
      switch name {
      case "ENOENT": .notFound
      case "EACCES", "EPERM": .permissionDenied
      case "EAGAIN": .conflict
      case "EEXIST": .exists
      case "EINVAL": .invalid
      case "E2BIG": .tooBig
      case "ENOSPC": .quotaExceeded
      default: .system(name)
      }
    }

    // MARK: Operations

    package func read(_ path: String, in transaction: XenstoreTransaction?) throws(XenstoreError) -> [UInt8] {
      try request(.read, "read", path, in: transaction, Self.bytes(path))
    }

    package func write(_ path: String, _ value: [UInt8], in transaction: XenstoreTransaction?) throws(XenstoreError) {
      _ = try request(.write, "write", path, in: transaction, Self.bytes(path) + value)
    }

    package func makeDirectory(_ path: String, in transaction: XenstoreTransaction?) throws(XenstoreError) {
      _ = try request(.makeDirectory, "mkdir", path, in: transaction, Self.bytes(path))
    }

    package func remove(_ path: String, in transaction: XenstoreTransaction?) throws(XenstoreError) {
      _ = try request(.remove, "rm", path, in: transaction, Self.bytes(path))
    }

    package func directory(_ path: String, in transaction: XenstoreTransaction?) throws(XenstoreError) -> [String] {
      Self.strings(try request(.directory, "directory", path, in: transaction, Self.bytes(path)))
    }

    package func permissions(
      _ path: String, in transaction: XenstoreTransaction?
    ) throws(XenstoreError) -> [XenstorePermission] {
      let strings = Self.strings(try request(.permissions, "permissions of", path, in: transaction, Self.bytes(path)))
      return strings.map { text in
        let access = Self.letters.first { $0.letter == text.first }!.access
        return XenstorePermission(DomainID(rawValue: UInt16(text.dropFirst())!), access)
      }
    }

    package func setPermissions(
      _ path: String, _ permissions: [XenstorePermission], in transaction: XenstoreTransaction?
    ) throws(XenstoreError) {
      let texts = permissions.map { entry in
        String(Self.letters.first { $0.access == entry.access }!.letter) + String(entry.domain.rawValue)
      }
      let payload = Self.bytes(path) + texts.flatMap(Self.bytes)
      _ = try request(.setPermissions, "set permissions of", path, in: transaction, payload)
    }

    private static let letters: [(letter: Character, access: XenstorePermission.Access)] = [
      ("n", .none), ("r", .read), ("w", .write), ("b", .both),
    ]

    package func startTransaction() throws(XenstoreError) -> XenstoreTransaction {
      let text = Self.strings(try request(.start, "start transaction", "", [0]))[0]
      return XenstoreTransaction(rawValue: UInt32(text)!)
    }

    package func endTransaction(_ transaction: XenstoreTransaction, commit: Bool) throws(XenstoreError) {
      _ = try request(.end, "end transaction", "", in: transaction, Self.bytes(commit ? "T" : "F"))
    }

    package func watch(_ path: String, token: String) throws(XenstoreError) {
      _ = try request(.watch, "watch", path, Self.bytes(path) + Self.bytes(token))
    }

    package func unwatch(_ path: String, token: String) throws(XenstoreError) {
      _ = try request(.unwatch, "unwatch", path, Self.bytes(path) + Self.bytes(token))
    }

    /// Events come before the answer to a later request, so one is made.
    package func nextWatchEvent() -> XenstoreWatchEvent? {
      if events.isEmpty { _ = try? permissions("/", in: nil) }
      return events.isEmpty ? nil : events.removeFirst()
    }

    /// Readable when something has come, which may be nothing that matters.
    package var descriptor: CInt { port }

    private static func bytes(_ text: String) -> [UInt8] { Array(text.utf8) + [0] }

    // MARK: Addresses

    private static func address(_ path: String) -> sockaddr_un {
      var address = sockaddr_un()
      address.sun_family = sa_family_t(AF_UNIX)
      // Safe: the path of a folder in /tmp is shorter than the field, which is all zeros.
      unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: path.utf8) }
      return address
    }

    @unsafe private static func withAddress<Result>(
      _ address: inout sockaddr_un, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result
    ) -> Result {
      unsafe withUnsafePointer(to: &address) { pointer in
        unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          unsafe body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
        }
      }
    }
  }

  extension Xenstored {
    /// Tells xenstored of a domain's page and port (XS_INTRODUCE), as a toolstack does.
    fileprivate func introduce(_ domain: DomainID, port: UInt32) throws {
      let handle = unsafe opening { unsafe xs_open(0) }
      guard let handle = unsafe handle else { throw XenstoredError("cannot open xenstored's socket") }
      defer { unsafe xs_close(handle) }
      guard unsafe xs_introduce_domain(handle, CUnsignedInt(domain.rawValue), 0, port) else {
        throw XenstoredError("xenstored takes no \(domain): \(ChildProgram.words(for: errno))")
      }
    }
  }
#endif
