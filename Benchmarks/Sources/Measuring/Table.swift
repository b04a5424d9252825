import Glibc

/// Prints a table's head as the documents have it.
public func printHead(_ columns: [String]) {
  printRow(columns)
  printRow(columns.map { _ in "---" })
}

/// Prints one row at once: the next one may take a while.
public func printRow(_ cells: [String]) {
  print("| \(cells.joined(separator: " | ")) |")
  fflush(nil)
}

/// Prints whether a goal was reached, in the form that `Benchmarks/all` looks for.
public func printGoal(_ name: String, reached: Bool, _ figures: String) {
  print("goal \(reached ? "reached" : "missed"): \(name): \(figures)")
  fflush(nil)
}
