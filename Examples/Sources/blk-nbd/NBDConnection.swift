import NBDProtocol
import NIOCore

/// One client: bytes from its socket to requests of the disk, and the answers back.
///
/// As long as it has much under way, or does not fetch its answers, nothing more is read from its socket, so a client holds no
/// more of this process's memory than three of the largest requests, and copies of what is on its way through the disk.
final class NBDConnection: ChannelDuplexHandler {
  typealias InboundIn = ByteBuffer
  typealias OutboundIn = ByteBuffer
  typealias OutboundOut = ByteBuffer

  /// How many requests may be under way at once.
  private static let maximumUnanswered = 64
  /// How many bytes they may have together, before the last of them.
  private static let maximumOccupied = NBDExport.maximumPayload

  private enum Phase {
    case handshake(NBDHandshake)
    case transmission(NBDTransmission)
    /// Takes nothing more, and closes when everything has been answered.
    case ending
  }

  private let service: NBDService
  private let number: Int
  private var phase: Phase
  private var context: ChannelHandlerContext?
  /// Received, and not looked at yet.
  private var input = ByteBuffer()
  private var unanswered = 0
  private var occupied = 0
  private var isTaking = false
  private var inputIsClosed = false
  private var readIsWithheld = false

  init(number: Int, of service: NBDService) {
    self.number = number
    self.service = service
    phase = .handshake(NBDHandshake(of: service.export))
  }

  func channelActive(context: ChannelHandlerContext) {
    self.context = context
    send(NBDHandshake.greeting)
    context.fireChannelActive()
  }

  func channelInactive(context: ChannelHandlerContext) {
    phase = .ending
    self.context = nil
    context.fireChannelInactive()
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    var bytes = unwrapInboundIn(data)
    if case .ending = phase { return }
    if input.readableBytes == 0 { input = bytes } else { input.writeBuffer(&bytes) }
    take()
  }

  func channelWritabilityChanged(context: ChannelHandlerContext) {
    take()
    context.fireChannelWritabilityChanged()
  }

  func read(context: ChannelHandlerContext) {
    guard hasRoom else {
      readIsWithheld = true
      return
    }
    context.read()
  }

  func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    switch event {
    // The client sends nothing more; it may still want its answers.
    case ChannelEvent.inputClosed:
      inputIsClosed = true
      take()
    case is NBDService.Stopping: end()
    default: context.fireUserInboundEventTriggered(event)
    }
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    // The client is gone, in one of the ways in which that shows.
    context.close(promise: nil)
  }

  // MARK: Taking

  private var hasRoom: Bool {
    context?.channel.isWritable == true && unanswered < Self.maximumUnanswered && occupied < Self.maximumOccupied
  }

  /// Takes messages out of the input as long as there is room for what they ask for.
  private func take() {
    guard !isTaking else { return }
    isTaking = true
    do throws(NBDFault) {
      while hasRoom {
        guard try !takeOne() else { continue }
        if inputIsClosed { end() }
        break
      }
    } catch { drop(because: "\(error)") }
    isTaking = false
    input.discardReadBytes()
    guard readIsWithheld, hasRoom else { return }
    readIsWithheld = false
    context?.read()
  }

  /// - Returns: false when the next message is not all there, or none is wanted.
  private func takeOne() throws(NBDFault) -> Bool {
    switch phase {
    case .handshake(var handshake):
      let step = try handshake.next(&input)
      phase = .handshake(handshake)
      switch step {
      case nil: return false
      case .reply(let reply): send(reply)
      case .enter(let reply, let terms):
        send(reply)
        phase = .transmission(NBDTransmission(terms))
      case .close(let reply):
        send(reply)
        end()
      }
    case .transmission(var transmission):
      // Nobody else holds the payload while it grows.
      phase = .ending
      let message = try transmission.next(&input)
      phase = .transmission(transmission)
      switch message {
      case nil: return false
      case .request(let request): begin(request)
      case .refused(let cookie, let error):
        service.countRefusal()
        send(NBDTransmission.reply(to: cookie, error: error))
      case .disconnect: end()
      }
    case .ending: return false
    }
    return true
  }

  private func begin(_ request: NBDRequest) {
    guard let context else { return }
    unanswered += 1
    occupied += request.payloadByteCount
    let service = service
    context.eventLoop.makeFutureWithTask { await service.perform(request) }.assumeIsolated().whenSuccess { answer in
      self.unanswered -= 1
      self.occupied -= request.payloadByteCount
      self.send(answer, to: request.cookie)
      self.take()
      self.closeWhenAnswered()
    }
  }

  // MARK: Answering

  private func send(_ answer: NBDService.Answer, to cookie: UInt64) {
    switch answer {
    case .failed(let error): send(NBDTransmission.reply(to: cookie, error: error))
    case .done: send(NBDTransmission.reply(to: cookie))
    case .read(let bytes):
      guard let context else { return }
      context.write(wrapOutboundOut(NBDTransmission.reply(to: cookie)), promise: nil)
      send(bytes)
    }
  }

  private func send(_ bytes: ByteBuffer) { context?.writeAndFlush(wrapOutboundOut(bytes), promise: nil) }

  // MARK: Ending

  private func end() {
    phase = .ending
    closeWhenAnswered()
  }

  private func closeWhenAnswered() {
    guard case .ending = phase, unanswered == 0, let context else { return }
    // Written last, so everything before has been.
    let written = context.eventLoop.makePromise(of: Void.self)
    written.futureResult.assumeIsolated().whenComplete { _ in context.close(promise: nil) }
    context.writeAndFlush(wrapOutboundOut(ByteBuffer()), promise: written)
  }

  private func drop(because reason: String) {
    phase = .ending
    service.complain("client \(number) is disconnected: \(reason)")
    context?.close(promise: nil)
  }
}
