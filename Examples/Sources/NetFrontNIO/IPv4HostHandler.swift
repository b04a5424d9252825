import NIOCore
import NetFront
import NetFrontTool

/// An ``IPv4Host`` in a ``CardChannel``'s pipeline: what asks it for something is answered, what does not goes no further.
///
/// While answers wait for room in the card, nothing more is read from it.
public final class IPv4HostHandler: ChannelDuplexHandler {
  public typealias InboundIn = CardFrame
  public typealias OutboundIn = CardFrame
  public typealias OutboundOut = CardFrame

  private var host: IPv4Host
  private var readIsWithheld = false
  private let whenRemoved: (IPv4Host.Counts) -> Void

  /// - Parameter whenRemoved: is told what has become of the frames, when the channel has closed.
  public init(_ host: IPv4Host, whenRemoved: @escaping (IPv4Host.Counts) -> Void) {
    (self.host, self.whenRemoved) = (host, whenRemoved)
  }

  public func handlerRemoved(context: ChannelHandlerContext) { whenRemoved(host.counts) }

  public func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    let frame = unwrapInboundIn(data)
    var bytes = Array(frame.bytes.readableBytesView)
    bytes.finish(frame.metadata)
    guard case .answer(let answer) = host.take(bytes) else { return }
    let sent = context.eventLoop.makePromise(of: Void.self)
    sent.futureResult.assumeIsolated().whenFailure { error in
      // Of a card that is closed nobody knows what it has sent.
      if let error = error as? NetFrontError, error != .notConnected { self.host.answersWereRefused(1) }
    }
    context.write(wrapOutboundOut(CardFrame(context.channel.allocator.buffer(bytes: answer))), promise: sent)
  }

  public func channelReadComplete(context: ChannelHandlerContext) {
    context.flush()
    context.fireChannelReadComplete()
  }

  public func read(context: ChannelHandlerContext) {
    readIsWithheld = !context.channel.isWritable
    if !readIsWithheld { context.read() }
  }

  public func channelWritabilityChanged(context: ChannelHandlerContext) {
    if readIsWithheld, context.channel.isWritable {
      readIsWithheld = false
      context.read()
    }
    context.fireChannelWritabilityChanged()
  }
}
