import Glibc
import XenPlatform

/// One key of a device's directory, and its value.
public struct StoreEntry: Hashable, Sendable {
  public let key: String
  /// Nil for a key that is not to be there.
  public let value: String?

  public init(_ key: String, _ value: String) {
    self.key = key
    self.value = value
  }

  /// A key that is not to be there, whatever an earlier life has left.
  public init(absent key: String) {
    self.key = key
    value = nil
  }

  public init(_ key: String, _ number: some FixedWidthInteger) { self.init(key, String(number)) }

  /// `feature-x` = 1 or 0.
  public init(_ key: String, _ flag: Bool) { self.init(key, flag ? "1" : "0") }
}

/// A directory of xenstore with typed access to its keys, inside a transaction or not.
public struct StoreDirectory: Sendable {
  public let store: any Xenstore
  public let path: String
  let transaction: XenstoreTransaction?

  public init(_ path: String, in store: any Xenstore, transaction: XenstoreTransaction? = nil) {
    self.store = store
    self.path = path
    self.transaction = transaction
  }

  public func path(of key: String) -> String { "\(path)/\(key)" }

  /// The key's text; nil when it is absent. Bytes that are not UTF-8 read as replacement characters.
  public func optionalString(_ key: String) throws(DeviceError) -> String? {
    do throws(XenstoreError) {
      return String(decoding: try store.read(path(of: key), in: transaction), as: UTF8.self)
    } catch {
      if error.code == .notFound { return nil }
      throw .store(error)
    }
  }

  public func string(_ key: String) throws(DeviceError) -> String {
    guard let value = try optionalString(key) else { throw .missingKey(path: path(of: key)) }
    return value
  }

  /// The key's decimal number; nil when it is absent.
  public func optionalNumber<Number: FixedWidthInteger>(
    _ key: String, as type: Number.Type = Number.self
  ) throws(DeviceError) -> Number? {
    guard let text = try optionalString(key) else { return nil }
    return try number(text, of: key, as: type)
  }

  /// What `text`, read from the key before, says in decimal.
  func number<Number: FixedWidthInteger>(
    _ text: String, of key: String, as type: Number.Type
  ) throws(DeviceError) -> Number {
    guard let first = text.utf8.first, first != UInt8(ascii: "+"), let number = Number(text) else {
      throw .malformedKey(
        path: path(of: key), value: text, expected: "a number from \(Number.min) to \(Number.max)")
    }
    return number
  }

  public func number<Number: FixedWidthInteger>(
    _ key: String, as type: Number.Type = Number.self
  ) throws(DeviceError) -> Number {
    guard let number = try optionalNumber(key, as: type) else { throw .missingKey(path: path(of: key)) }
    return number
  }

  /// Whether a feature is offered: absent and 0 mean no, any other number yes.
  public func flag(_ key: String) throws(DeviceError) -> Bool { try optionalNumber(key, as: UInt32.self) ?? 0 != 0 }

  public func write(_ entries: [StoreEntry]) throws(DeviceError) {
    for entry in entries {
      guard let value = entry.value else {
        try remove(entry.key)
        continue
      }
      try translating { () throws(XenstoreError) in
        try store.write(path(of: entry.key), Array(value.utf8), in: transaction)
      }
    }
  }

  public func remove(_ key: String) throws(DeviceError) {
    do throws(XenstoreError) {
      try store.remove(path(of: key), in: transaction)
    } catch {
      if error.code != .notFound { throw .store(error) }
    }
  }

  /// The names below the directory; none when it is absent.
  public func children() throws(DeviceError) -> [String] {
    do throws(XenstoreError) {
      return try store.directory(path, in: transaction)
    } catch {
      if error.code == .notFound { return [] }
      throw .store(error)
    }
  }

  public func exists() throws(DeviceError) -> Bool {
    do throws(XenstoreError) {
      _ = try store.read(path, in: transaction)
      return true
    } catch {
      if error.code == .notFound { return false }
      throw .store(error)
    }
  }

  /// Runs `body` on this directory inside a transaction, so that all it reads belongs together and all it writes appears
  /// at once; anew, after a short random wait, when somebody else changed what it saw.
  ///
  /// - Throws: what `body` throws, nothing then being written; a conflict after 16 attempts.
  public func transaction<Result>(
    _ body: (StoreDirectory) throws(DeviceError) -> Result
  ) throws(DeviceError) -> Result {
    var attempt = 1
    while true {
      let transaction = try translating { () throws(XenstoreError) in try store.startTransaction() }
      let result: Result
      do throws(DeviceError) {
        result = try body(StoreDirectory(path, in: store, transaction: transaction))
      } catch {
        // Its failure matters less than the one under way, and the store forgets the transaction with the connection.
        try? store.endTransaction(transaction, commit: false)
        throw error
      }
      do throws(XenstoreError) {
        try store.endTransaction(transaction, commit: true)
        return result
      } catch {
        guard error.code == .conflict, attempt < 16 else { throw .store(error) }
        usleep(UInt32.random(in: 0...(32 << UInt32(min(attempt, 10)))))
        attempt += 1
      }
    }
  }

  func translating<Result>(_ call: () throws(XenstoreError) -> Result) throws(DeviceError) -> Result {
    do throws(XenstoreError) { return try call() } catch { throw .store(error) }
  }
}
