import Glibc
import XenPlatform

/// One client of a ``XenstoreSocket``: a connection to the store, and the bytes on their way. Its server's thread's own.
///
/// A client that does not read gets no more answers from ``answersByteLimit`` on. What watches report goes on being taken for
/// it, up to ``unsentByteLimit``.
final class XenstoreConnection {
  /// Why a connection is at its end.
  enum Ending: Error {
    /// The client has gone, or its socket failed.
    case gone
    /// The client wrote what cannot be the beginning of a message.
    case malformed
    /// More than ``unsentByteLimit`` waits for a client that does not read.
    case unread
  }

  static let answersByteLimit = 1 << 16
  static let unsentByteLimit = 1 << 20

  private let descriptor: CInt
  private let loopback: Loopback
  private let domain: LoopbackDomain
  private var store: any Xenstore
  private var transactions: Set<XenstoreTransaction> = []
  private var incoming: [UInt8] = []
  private var outgoing: [UInt8] = []
  /// The client will write nothing more.
  private var isAtEnd = false

  /// - Parameters:
  ///   - descriptor: a socket that does not block; the connection closes it when it ends.
  ///   - store: nobody else's, of `domain`.
  init(_ descriptor: CInt, to store: any Xenstore, of domain: LoopbackDomain, in loopback: Loopback) {
    self.descriptor = descriptor
    self.store = store
    self.domain = domain
    self.loopback = loopback
  }

  deinit { _ = Glibc.close(descriptor) }

  /// What its thread waits for: the client, and what watches report.
  var waits: [pollfd] {
    let events = (mayAnswer && !isAtEnd ? POLLIN : 0) | (outgoing.isEmpty ? 0 : POLLOUT)
    return [
      pollfd(fd: descriptor, events: Int16(events), revents: 0),
      pollfd(fd: store.descriptor, events: Int16(POLLIN), revents: 0),
    ]
  }

  private var mayAnswer: Bool { outgoing.count < Self.answersByteLimit }

  /// Does what can be done without waiting, at most for as many requests as one reading brings.
  func turn() throws(Ending) {
    try reportEvents()
    try send()
    if mayAnswer, !isAtEnd { try receive() }
    while mayAnswer, let message = try nextMessage() {
      let answer = answer(message)
      // As xenstored does: whoever changes what he watches hears of it before he is told that it is done.
      if message.kind != XenstoreMessage.Kind.watch.rawValue { try reportEvents() }
      outgoing += answer.bytes
      try send()
    }
    // What it asked for before it stopped writing is answered; half a message is nothing.
    if isAtEnd, outgoing.isEmpty { throw .gone }
  }

  // MARK: Bytes

  /// Reads no further than one message may reach, so that what waits in ``incoming`` is bounded.
  private func receive() throws(Ending) {
    let room = XenstoreMessage.headerByteCount + XenstoreMessage.payloadByteLimit - incoming.count
    guard room > 0 else { return }
    var bytes = [UInt8](repeating: 0, count: room)
    // Safe: the buffer has room for as many bytes as are asked for.
    let count = unsafe bytes.withUnsafeMutableBytes { unsafe recv(descriptor, $0.baseAddress, $0.count, 0) }
    guard count >= 0 else {
      if mustWait { return }
      throw .gone
    }
    incoming += bytes.prefix(count)
    isAtEnd = count == 0
  }

  private func nextMessage() throws(Ending) -> XenstoreMessage? {
    do throws(XenstoreMessage.TooLong) { return try XenstoreMessage.take(from: &incoming) } catch { throw .malformed }
  }

  private func send() throws(Ending) {
    while !outgoing.isEmpty {
      // Safe: the buffer holds as many bytes as are sent.
      let count = unsafe outgoing.withUnsafeBytes {
        unsafe Glibc.send(descriptor, $0.baseAddress, $0.count, Self.noSignal)
      }
      if count < 0, mustWait { return }
      guard count > 0 else { throw .gone }
      outgoing.removeFirst(count)
    }
  }

  private static let noSignal = CInt(MSG_NOSIGNAL)

  /// Whether the last call on the socket failed only for now.
  private var mustWait: Bool { errno == EAGAIN || errno == EINTR }

  private func reportEvents() throws(Ending) {
    while let event = store.nextWatchEvent() {
      let payload = event.path.wire + event.token.wire
      // One that no message can carry xenstored keeps to itself too.
      guard payload.count <= XenstoreMessage.payloadByteLimit else { continue }
      outgoing +=
        XenstoreMessage(
          kind: XenstoreMessage.Kind.watchEvent.rawValue, request: 0, transaction: 0, payload: payload
        ).bytes
      guard outgoing.count <= Self.unsentByteLimit else { throw .unread }
    }
  }

  // MARK: Requests

  private func answer(_ message: XenstoreMessage) -> XenstoreMessage {
    var answer = message
    do throws(XenstoreErrorName) {
      let request = try XenstoreRequest(message)
      answer.payload = try perform(request, in: try transaction(of: message, request))
      guard answer.payload.count <= XenstoreMessage.payloadByteLimit else { throw .tooBig }
    } catch {
      answer.kind = XenstoreMessage.Kind.error.rawValue
      answer.payload = error.rawValue.wire
    }
    return answer
  }

  private func transaction(
    of message: XenstoreMessage, _ request: XenstoreRequest
  ) throws(XenstoreErrorName) -> XenstoreTransaction? {
    switch request {
    // These belong to none, whatever the header says.
    case .watch, .unwatch: return nil
    default: break
    }
    guard message.transaction != 0 else { return nil }
    let transaction = XenstoreTransaction(rawValue: message.transaction)
    guard transactions.contains(transaction) else { throw .notFound }
    return transaction
  }

  private func perform(
    _ request: XenstoreRequest, in transaction: XenstoreTransaction?
  ) throws(XenstoreErrorName) -> [UInt8] {
    // The store knows no such refusal.
    if request == .startTransaction, transaction != nil { throw .inTransaction }
    do throws(XenstoreError) { return try ask(request, in: transaction) ?? "OK".wire } catch {
      throw XenstoreErrorName(error.code)
    }
  }

  /// - Returns: nil when there is nothing to say but that it is done.
  private func ask(
    _ request: XenstoreRequest, in transaction: XenstoreTransaction?
  ) throws(XenstoreError) -> [UInt8]? {
    switch request {
    case .directory(let path): return try store.directory(path, in: transaction).flatMap(\.wire)
    case .directoryPart(let path, let offset):
      return part(of: try store.directory(path, in: transaction), from: offset)
    case .read(let path): return try store.read(path, in: transaction)
    case .write(let path, let value): try store.write(path, value, in: transaction)
    case .makeDirectory(let path): try store.makeDirectory(path, in: transaction)
    case .remove(let path): try store.remove(path, in: transaction)
    case .permissions(let path): return try store.permissions(path, in: transaction).flatMap(\.wire.wire)
    case .setPermissions(let path, let permissions): try store.setPermissions(path, permissions, in: transaction)
    case .watch(let path, let token): try store.watch(path, token: token)
    case .unwatch(let path, let token): try store.unwatch(path, token: token)
    case .resetWatches:
      // With the former connection end its watches and transactions.
      store = try domain.openXenstore()
      transactions = []
    case .startTransaction:
      let transaction = try store.startTransaction()
      transactions.insert(transaction)
      return String(transaction.rawValue).wire
    case .endTransaction(let commit):
      guard let transaction else { throw XenstoreError(.notFound, "end transaction", "") }
      transactions.remove(transaction)
      try store.endTransaction(transaction, commit: commit)
    case .domainPath(let domain): return StorePath.home(of: domain).wire
    case .isDomainIntroduced(let domain): return (loopback.has(domain) ? "T" : "F").wire
    case .help: return "help\t\n".wire
    // Domains come and go by the Loopback's own calls: whoever looks in may not do what only a toolstack may.
    case .manageDomains: throw XenstoreError(.permissionDenied, "manage domains", "")
    }
    return nil
  }

  /// The whole names that there is room for, from the byte `offset` of the list on, behind a number that stays as long as the
  /// list does; an empty name behind the last one.
  private func part(of names: [String], from offset: Int) -> [UInt8] {
    var part = String(UInt(bitPattern: names.hashValue)).wire
    let rest = names.flatMap(\.wire).dropFirst(offset)
    let room = XenstoreMessage.payloadByteLimit - part.count
    guard rest.count >= room else { return part + rest + [0] }
    part += rest.prefix(room)[...(rest.prefix(room).lastIndex(of: 0) ?? rest.startIndex)]
    return part
  }
}
