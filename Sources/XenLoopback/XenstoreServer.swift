import Glibc
import Synchronization
import SystemPackage
import XenPlatform

/// The thread behind a ``XenstoreSocket``, asleep until a client, a watch or the end has something for it.
final class XenstoreServer: Sendable {
  private static let connectionLimit = 100

  private let domain: LoopbackDomain
  private let stop: Wakeup
  /// Nil when it has ended.
  private let thread: Mutex<pthread_t?>

  init(_ loopback: Loopback, on socket: ListeningSocket) throws(ResourceError) {
    stop = try Wakeup()
    domain = loopback.addProcess(in: .zero)
    let work = Work(loopback, domain, socket, stop)
    do throws(ResourceError) { thread = Mutex(try work.start(name: "xenstore")) } catch {
      domain.kill()
      throw error
    }
  }

  func end() {
    thread.withLock { handle in
      guard let running = handle else { return }
      stop.signal()
      _ = pthread_join(running, nil)
      handle = nil
    }
    domain.kill()
  }

  /// What the thread alone uses, from its first to its last turn.
  private final class Work: ThreadWork {
    private let loopback: Loopback
    private let domain: LoopbackDomain
    private let socket: ListeningSocket
    private let stop: Wakeup
    private var connections: [XenstoreConnection] = []
    /// The next client's: nobody is accepted for whom there would be none.
    private var nextStore: (any Xenstore)?
    /// False for a moment when there is nothing left to make a connection with.
    private var mayAccept = true

    init(_ loopback: Loopback, _ domain: LoopbackDomain, _ socket: ListeningSocket, _ stop: Wakeup) {
      (self.loopback, self.domain, self.socket, self.stop) = (loopback, domain, socket, stop)
    }

    func run() {
      while wait() {
        connections.removeAll { connection in
          do throws(XenstoreConnection.Ending) {
            try connection.turn()
            return false
          } catch { return true }
        }
        while mayAccept, connections.count < XenstoreServer.connectionLimit, accept() {}
      }
    }

    /// - Returns: whether there may be another client.
    private func accept() -> Bool {
      if nextStore == nil { nextStore = try? domain.openXenstore() }
      guard let store = nextStore else {
        mayAccept = false
        return false
      }
      do throws(Errno) {
        connections.append(XenstoreConnection(try socket.accept(), to: store, of: domain, in: loopback))
      } catch {
        // Others are of a client that has gone again, or say that there is none.
        if [.tooManyOpenFiles, .tooManyOpenFilesInSystem, .noMemory, .noBufferSpace].contains(error) {
          mayAccept = false
        }
        return false
      }
      nextStore = nil
      return true
    }

    /// - Returns: false when it is to end.
    private func wait() -> Bool {
      let listens = mayAccept && connections.count < XenstoreServer.connectionLimit
      var waits = [stop.descriptor, listens ? socket.descriptor : -1].map {
        // poll(2) passes over a negative one.
        pollfd(fd: $0, events: Int16(POLLIN), revents: 0)
      }
      for connection in connections { waits += connection.waits }
      let isReady = Wakeup.wait(for: &waits, timeout: mayAccept ? -1 : 100)
      mayAccept = true
      return !(isReady && waits[0].revents != 0)
    }
  }
}
