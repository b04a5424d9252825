import NIOCore

/// A request that lies on the disk, keeps to the terms, and has its payload.
public struct NBDRequest: Hashable, Sendable {
  public enum Command: Hashable, Sendable {
    /// From 1 to ``NBDExport/maximumPayload`` bytes.
    case read(offset: UInt64, byteCount: Int)
    /// - isDurable: answered only when the bytes are on the medium (FUA).
    case write(offset: UInt64, [UInt8], isDurable: Bool)
    case flush
  }

  /// The client's own number, given back with the reply.
  public let cookie: UInt64
  public let command: Command

  public init(cookie: UInt64, command: Command) {
    self.cookie = cookie
    self.command = command
  }

  /// What it occupies until it is answered.
  public var payloadByteCount: Int {
    switch command {
    case .read(_, let byteCount): byteCount
    case .write(_, let bytes, _): bytes.count
    case .flush: 0
    }
  }
}

/// The server's side of the transmission phase, without a socket (proto.md, "Transmission"): bytes to validated requests.
public struct NBDTransmission: Sendable {
  public enum Message: Hashable, Sendable {
    case request(NBDRequest)
    /// To be answered with the error. Its payload, if it had any, is gone.
    case refused(cookie: UInt64, NBDError)
    /// To be closed when everything before has been answered.
    case disconnect
  }

  private enum State {
    case header
    case payload(cookie: UInt64, offset: UInt64, missing: Int, isDurable: Bool)
    case skipping(byteCount: UInt32, cookie: UInt64, NBDError)
  }

  private let terms: NBDTerms
  private var state = State.header
  /// Of the write whose payload is coming in.
  private var payload: [UInt8] = []

  public init(_ terms: NBDTerms) { self.terms = terms }

  /// Takes the next message out of `input`.
  ///
  /// - Returns: nil when it is not all there yet; what is left in `input` then is shorter than a header, as payload is taken
  ///   out as it comes.
  /// - Throws: when what came is no request, so that nobody knows where the next one begins.
  public mutating func next(_ input: inout ByteBuffer) throws(NBDFault) -> Message? {
    while true {
      switch state {
      case .header:
        guard let header = try NBDRequestHeader(&input) else { return nil }
        if header.command == NBD.Command.disconnect { return .disconnect }
        if let error = header.error(terms) {
          // A write has its payload, whatever is wrong with it; nothing else has any.
          guard header.command == NBD.Command.write else { return .refused(cookie: header.cookie, error) }
          state = .skipping(byteCount: header.length, cookie: header.cookie, error)
          continue
        }
        guard header.command == NBD.Command.write else { return .request(header.requestWithoutPayload) }
        payload.reserveCapacity(Int(header.length))
        state = .payload(
          cookie: header.cookie, offset: header.offset, missing: Int(header.length),
          isDurable: header.flags & NBD.CommandFlag.fua != 0)
      case .payload(let cookie, let offset, let missing, let isDurable):
        let slice = input.readSlice(length: min(missing, input.readableBytes)) ?? ByteBuffer()
        payload.append(contentsOf: slice.readableBytesView)
        guard slice.readableBytes == missing else {
          state = .payload(cookie: cookie, offset: offset, missing: missing - slice.readableBytes, isDurable: isDurable)
          return nil
        }
        let bytes = payload
        payload = []
        state = .header
        return .request(NBDRequest(cookie: cookie, command: .write(offset: offset, bytes, isDurable: isDurable)))
      case .skipping(let byteCount, let cookie, let error):
        // Fits: no more than there was to skip.
        let skipped = UInt32(min(Int(byteCount), input.readableBytes))
        input.moveReaderIndex(forwardBy: Int(skipped))
        guard skipped == byteCount else {
          state = .skipping(byteCount: byteCount - skipped, cookie: cookie, error)
          return nil
        }
        state = .header
        return .refused(cookie: cookie, error)
      }
    }
  }

  /// What precedes the bytes of a read, or is the whole reply.
  public static func reply(to cookie: UInt64, error: NBDError? = nil) -> ByteBuffer {
    var reply = ByteBuffer()
    reply.writeMultipleIntegers(NBD.simpleReplyMagic, error?.rawValue ?? 0, cookie)
    return reply
  }
}

/// The 28 bytes that begin a request.
private struct NBDRequestHeader {
  static let byteCount = 28

  let flags: UInt16
  let command: UInt16
  let cookie: UInt64
  let offset: UInt64
  let length: UInt32

  /// - Returns: nil when it is not all there yet.
  init?(_ input: inout ByteBuffer) throws(NBDFault) {
    guard let magic = input.getInteger(at: input.readerIndex, as: UInt32.self) else { return nil }
    guard magic == NBD.requestMagic else { throw .requestMagic(magic) }
    guard input.readableBytes >= Self.byteCount,
      let (_, flags, command, cookie, offset, length) = input.readMultipleIntegers(
        as: (UInt32, UInt16, UInt16, UInt64, UInt64, UInt32).self)
    else { return nil }
    (self.flags, self.command, self.cookie, self.offset, self.length) = (flags, command, cookie, offset, length)
  }

  /// What is wrong with it, if anything.
  func error(_ terms: NBDTerms) -> NBDError? {
    // FUA is valid with every command (proto.md, "Command flags").
    guard flags & ~NBD.CommandFlag.fua == 0 else { return .invalid }
    let export = terms.export
    switch command {
    case NBD.Command.flush:
      return offset == 0 && length == 0 ? nil : .invalid
    case NBD.Command.read, NBD.Command.write:
      let isWrite = command == NBD.Command.write
      if isWrite, export.isReadOnly { return .notPermitted }
      guard length > 0, length <= NBDExport.maximumPayload else { return .invalid }
      guard export.contains(offset: offset, count: length) else { return isWrite ? .noSpace : .invalid }
      return terms.keepsToBlocks && !export.isAligned(offset: offset, count: length) ? .invalid : nil
    default:
      return .invalid
    }
  }

  /// Of a read or a flush without fault.
  var requestWithoutPayload: NBDRequest {
    NBDRequest(
      cookie: cookie, command: command == NBD.Command.flush ? .flush : .read(offset: offset, byteCount: Int(length)))
  }
}
